//! What no well-behaved client library would send, and TLS: packets by hand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use bytes::{BufMut, BytesMut};

use super::*;

const PUBACK: u8 = 0x40;
const CONNACK: u8 = 0x20;

fn test_data(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data/tls").join(file)
}

/// CONNECT of device `m-1`; level 4 is MQTT 3.1.1, 5 is 5.
fn connect(level: u8) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_slice(b"\0\x04MQTT");
    body.put_slice(&[level, 0b1100_0010, 0, 60]);
    if level == 5 {
        body.put_u8(0);
    }
    let password = device_password(&key(), "default", "m-1");
    for text in ["m-1", "m-1", &password] {
        body.put_u16(text.len() as u16);
        body.put_slice(text.as_bytes());
    }
    packet(0x10, &body)
}

/// PUBLISH at QoS 1 with packet id 1; `properties` as they are in MQTT 5, `None` in 3.1.1.
fn publish(topic: &[u8], properties: Option<&[u8]>) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(topic.len() as u16);
    body.put_slice(topic);
    body.put_u16(1);
    if let Some(properties) = properties {
        body.put_u8(properties.len() as u8);
        body.put_slice(properties);
    }
    body.put_slice(b"{}");
    packet(0x32, &body)
}

fn packet(packet_type: u8, body: &[u8]) -> BytesMut {
    assert!(body.len() < 128);
    let mut packet = BytesMut::from(&[packet_type, body.len() as u8][..]);
    packet.put_slice(body);
    packet
}

/// Sends packets, one after each answer, and gives the types of the answers; it ends when the broker closes.
fn talk(mut stream: impl Read + Write, packets: &[BytesMut]) -> Vec<u8> {
    let mut answers = Vec::new();
    for packet in packets {
        if stream.write_all(packet).and_then(|()| stream.flush()).is_err() {
            break;
        }
        let mut head = [0; 2];
        if stream.read_exact(&mut head).is_err() || stream.read_exact(&mut vec![0; usize::from(head[1])]).is_err() {
            break;
        }
        answers.push(head[0]);
    }
    answers
}

async fn answers(house: &House, packets: Vec<BytesMut>) -> Vec<u8> {
    let addr = house.broker.local_addr();
    let talk = move || {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        talk(stream, &packets)
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_a_null_character_is_not_stored_and_not_acknowledged() {
    let house = House::open().await;
    for topic in [
        &b"flexmeter/default/m-1/events\0"[..],
        b"flexmeter/default/m-1\0/events",
        b"\0",
        b"",
        b"flexmeter/default/m-1/events\xff",
    ] {
        assert_eq!(
            answers(&house, vec![connect(4), publish(topic, None)]).await,
            [CONNACK],
            "{topic:?}"
        );
    }
    assert_eq!(house.log.n_begun(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_alias_smuggles_no_topic() {
    let house = House::open().await;
    let alias = Some(&[0x23, 0, 1][..]);
    let (own, foreign) = (&b"flexmeter/default/m-1/events"[..], &b"flexmeter/default/m-2/events"[..]);
    assert_eq!(answers(&house, vec![connect(5), publish(own, Some(&[]))]).await, [CONNACK, PUBACK]);
    assert_eq!(house.log.n_begun(), 1);
    let via_alias = answers(&house, vec![connect(5), publish(own, alias), publish(b"", alias)]).await;
    assert!(
        via_alias.iter().filter(|answer| **answer == PUBACK).count() <= 1,
        "the empty topic: {via_alias:02x?}"
    );
    let foreign = answers(&house, vec![connect(5), publish(foreign, alias), publish(b"", alias)]).await;
    assert!(!foreign.contains(&PUBACK), "{foreign:02x?}");
    assert!(house.log.stored().iter().all(|record| record.hardware_id == "m-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_mqtt_end_the_connection() {
    let house = House::open().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x10\xff\xff\xff\xff\x7f",
        b"\x32\x05\0\x01a\0\x01",
        b"\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        let answers = answers(&house, vec![BytesMut::from(bytes)]).await;
        assert!(answers.is_empty() || answers == [CONNACK], "{bytes:?}: {answers:02x?}");
    }
    let mut device = house.device("m-1").await;
    assert!(
        device.publish("flexmeter/default/m-1/events", "{}").await,
        "and others do not notice"
    );
}

fn tls_config(cert_file: &str) -> MqttConfig {
    MqttConfig {
        tls_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        tls_cert_file: Some(test_data(cert_file)),
        tls_key_file: Some(test_data("key.pem")),
        ..config()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tls_listener_speaks_the_same_as_the_plain_one() {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};

    let house = House::with(tls_config("cert.pem"), secure()).await;
    let addr = house.broker.tls_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(test_data("cert.pem")).unwrap()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
    let talk = move || {
        let tls = rustls::ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
        let tcp = TcpStream::connect(addr).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        talk(
            rustls::StreamOwned::new(tls, tcp),
            &[connect(4), publish(b"flexmeter/default/m-1/events", None)],
        )
    };
    assert_eq!(tokio::task::spawn_blocking(talk).await.unwrap(), [CONNACK, PUBACK]);
    assert_eq!(house.log.payloads(), ["{}"]);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let config = tls_config("absent.pem");
    let error = Broker::start(config, Arc::new(FakeLog::default()), secure()).await.err().unwrap();
    assert!(error.to_string().contains("absent.pem"), "{error}");
}
