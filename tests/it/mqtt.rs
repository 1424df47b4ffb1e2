//! MQTT 3.1.1 by hand: CONNECT, PUBLISH at QoS 1, PUBACK, SUBSCRIBE at QoS 0. Nothing is sent again behind the test's back, so that a ledger can be kept.
//!
//! # Source
//! OASIS MQTT 3.1.1, sections 2.2.3, 3.1 to 3.4, 3.8, 3.9.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer that takes longer than this will not come.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;
/// Return code of a refused subscription.
const SUBSCRIPTION_REFUSED: u8 = 0x80;

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    last_packet_id: u16,
}

impl Connection {
    /// Connects with a clean session.
    ///
    /// # Errors
    /// The socket's, or [`io::ErrorKind::PermissionDenied`] when the broker refuses.
    pub(crate) async fn open(address: SocketAddr, client_id: &str, user: &str, password: &str) -> io::Result<Self> {
        let mut body = Vec::new();
        put_text(&mut body, b"MQTT");
        body.extend([4, 0b1100_0010, 0, 60]); // level, user + password + clean session, keep alive 60 s
        for text in [client_id, user, password] {
            put_text(&mut body, text.as_bytes());
        }
        let mut connection = Self {
            stream: TcpStream::connect(address).await?,
            last_packet_id: 0,
        };
        connection.stream.set_nodelay(true)?;
        connection.send(0x10, &body).await?;
        match connection.receive(CONNACK).await?.as_slice() {
            [_, 0] => Ok(connection),
            refusal => Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("CONNACK {refusal:?}"))),
        }
    }

    /// Publishes at QoS 1 and waits for the PUBACK. `again` marks a redelivery (DUP).
    ///
    /// # Errors
    /// The socket's: then nobody knows whether the message was stored.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8], again: bool) -> io::Result<()> {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        let id = self.last_packet_id.to_be_bytes();
        let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
        put_text(&mut body, topic.as_bytes());
        body.extend(id);
        body.extend_from_slice(payload);
        self.send(if again { 0x3a } else { 0x32 }, &body).await?;
        loop {
            if self.receive(PUBACK).await? == id {
                return Ok(());
            }
        }
    }

    /// Subscribes at QoS 0. Messages that arrive before the answer are lost to the caller.
    ///
    /// # Errors
    /// The socket's, or [`io::ErrorKind::PermissionDenied`] when the broker refuses.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        let mut body = self.last_packet_id.to_be_bytes().to_vec();
        put_text(&mut body, filter.as_bytes());
        body.push(0);
        self.send(0x82, &body).await?;
        match self.receive(SUBACK).await?.as_slice() {
            [_, _, code] if *code != SUBSCRIPTION_REFUSED => Ok(()),
            refusal => Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("SUBACK {refusal:?}"))),
        }
    }

    /// The next JSON message at a topic that `is_it`; others are passed over.
    pub(crate) async fn message_where(&mut self, topic: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let deadline = tokio::time::Instant::now() + ANSWER_DEADLINE;
        while let Ok(Ok(body)) = tokio::time::timeout_at(deadline, self.receive(PUBLISH)).await {
            let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let (name, payload) = body[2..].split_at(topic_len);
            if name == topic.as_bytes() {
                last = serde_json::from_slice(payload).unwrap_or_default();
                if is_it(&last) {
                    return last;
                }
            }
        }
        panic!("no such message at {topic}; the last one was {last}");
    }

    async fn send(&mut self, first_byte: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![first_byte];
        let mut left = body.len();
        loop {
            let digit = (left % 128) as u8;
            left /= 128;
            packet.push(if left > 0 { digit | 0x80 } else { digit });
            if left == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        within(self.stream.write_all(&packet)).await
    }

    /// The body of the next packet of a type; others are passed over.
    async fn receive(&mut self, packet_type: u8) -> io::Result<Vec<u8>> {
        loop {
            let (first_byte, body) = within(self.packet()).await?;
            if first_byte >> 4 == packet_type {
                return Ok(body);
            }
        }
    }

    async fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let first_byte = self.stream.read_u8().await?;
        let mut len = 0;
        for shift in [0, 7, 14, 21] {
            let digit = self.stream.read_u8().await?;
            len |= usize::from(digit & 0x7f) << shift;
            if digit & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).await?;
        Ok((first_byte, body))
    }
}

async fn within<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(ANSWER_DEADLINE, answer)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}
