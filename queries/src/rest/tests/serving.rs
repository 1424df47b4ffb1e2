use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::fixture::{BASIC, History, state};
use crate::live::LiveStore;
use crate::rest::{RestConfig, RestError, serve};

async fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let mut text = Vec::new();
    let deadline = Duration::from_secs(20);
    while !String::from_utf8_lossy(&text).contains(part) {
        let mut buffer = [0; 4096];
        let n = tokio::time::timeout(deadline, stream.read(&mut buffer))
            .await
            .expect("an answer in time")
            .unwrap();
        assert!(n > 0, "the connection ended before {part:?}: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn the_server_answers_over_tcp_and_stops_when_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = state(Arc::new(LiveStore::new()), Arc::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(RestConfig::default(), listener, state, async {
        let _ = stopped.await;
    }));
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_until(&mut idle, "\"ok\"").await.starts_with("HTTP/1.1 200 OK"));
    let mut events = TcpStream::connect(address).await.unwrap();
    let ask = format!("GET /api/v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: {BASIC}\r\n\r\n");
    events.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut events, "retry: ").await;

    stop.send(()).unwrap();
    read_until(&mut events, "event: shutdown").await;
    tokio::time::timeout(Duration::from_secs(20), server)
        .await
        .expect("the server stops in time")
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn nothing_is_served_beyond_loopback_without_tls() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let state = state(Arc::new(LiveStore::new()), Arc::new(History::default()));
    let error = serve(RestConfig::default(), listener, state, std::future::pending())
        .await
        .unwrap_err();
    assert!(matches!(error, RestError::NotLoopback { .. }), "{error}");
}
