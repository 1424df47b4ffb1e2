//! The few MQTT 3.1.1 packets a publisher needs: CONNECT, PUBLISH (QoS 1), PINGREQ and DISCONNECT out; CONNACK, PUBACK and PINGRESP in.

use bytes::{Buf, BufMut, BytesMut};

/// Keeps an idle connection open.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
/// Says goodbye, so that the broker drops the session at once.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];
/// Longest packet a broker may answer a publisher with, in bytes; all three have two to four.
const INCOMING_LEN_MAX: u8 = 8;

/// A packet from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Answer to CONNECT with its return code; 0 is "accepted".
    ConnAck(u8),
    /// The message with this packet id is stored.
    PubAck(u16),
    /// Answer to PINGREQ.
    PingResp,
}

/// The broker sent something a publisher cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent a packet of type {packet_type:#04x} with {len} bytes, which a publisher does not expect")]
pub(super) struct Unexpected {
    packet_type: u8,
    len: u8,
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    // Lengths are checked where names and topics are made; a cut text is refused by the broker.
    let len = text.len().min(usize::from(u16::MAX));
    out.put_u16(len as u16);
    out.put_slice(&text[..len]);
}

fn put_remaining_len(out: &mut BytesMut, mut len: usize) {
    while len >= 0x80 {
        out.put_u8((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    out.put_u8(len as u8);
}

/// CONNECT with a clean session: what is unacknowledged is ours to send again, not the broker's to remember.
pub(super) fn put_connect(out: &mut BytesMut, client_id: &str, login: Option<(&str, &str)>, keep_alive_s: u16) {
    let login_len = login.map_or(0, |(user, password)| 4 + user.len() + password.len());
    out.put_u8(0x10);
    put_remaining_len(out, 10 + 2 + client_id.len() + login_len);
    put_text(out, b"MQTT");
    out.put_u8(4);
    out.put_u8(if login.is_some() { 0b1100_0010 } else { 0b0000_0010 });
    out.put_u16(keep_alive_s);
    put_text(out, client_id.as_bytes());
    if let Some((user, password)) = login {
        put_text(out, user.as_bytes());
        put_text(out, password.as_bytes());
    }
}

/// PUBLISH at QoS 1.
pub(super) fn put_publish(out: &mut BytesMut, packet_id: u16, redelivered: bool, topic: &str, payload: &[u8]) {
    let len = 2 + topic.len() + 2 + payload.len();
    out.reserve(5 + len);
    out.put_u8(if redelivered { 0x3a } else { 0x32 });
    put_remaining_len(out, len);
    put_text(out, topic.as_bytes());
    out.put_u16(packet_id);
    out.put_slice(payload);
}

/// Takes the next whole packet out of `buffer`.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Incoming>, Unexpected> {
    let &[packet_type, len, ..] = &buffer[..] else { return Ok(None) };
    let unexpected = Unexpected { packet_type, len };
    if len > INCOMING_LEN_MAX {
        return Err(unexpected);
    }
    if buffer.len() < 2 + usize::from(len) {
        return Ok(None);
    }
    buffer.advance(2);
    match (packet_type >> 4, len) {
        (2, 2) => {
            buffer.advance(1);
            Ok(Some(Incoming::ConnAck(buffer.get_u8())))
        }
        (4, 2) => Ok(Some(Incoming::PubAck(buffer.get_u16()))),
        (13, 0) => Ok(Some(Incoming::PingResp)),
        _ => Err(unexpected),
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::QoS;
    use rumqttc::mqttbytes::v4::Packet;

    use super::*;

    /// What an independent codec makes of our bytes.
    fn decode(mut bytes: BytesMut) -> Packet {
        let packet = Packet::read(&mut bytes, 2 << 20).unwrap();
        assert!(bytes.is_empty());
        packet
    }

    #[test]
    fn an_independent_codec_reads_what_we_write() {
        for len in [0, 1, 100, 127, 128, 16_383, 16_384, 1 << 20] {
            let payload = vec![b'x'; len];
            let mut out = BytesMut::new();
            put_publish(&mut out, 513, true, "a/b", &payload);
            let Packet::Publish(publish) = decode(out) else {
                panic!("no publish")
            };
            assert_eq!((publish.qos, publish.dup, publish.retain), (QoS::AtLeastOnce, true, false));
            assert_eq!(
                (publish.pkid, publish.topic.as_str(), &publish.payload[..]),
                (513, "a/b", &payload[..])
            );
        }
        let mut out = BytesMut::new();
        put_connect(&mut out, "client", Some(("user", "secret")), 60);
        let Packet::Connect(connect) = decode(out) else {
            panic!("no connect")
        };
        assert_eq!(
            (connect.client_id.as_str(), connect.keep_alive, connect.clean_session),
            ("client", 60, true)
        );
        let login = connect.login.unwrap();
        assert_eq!((login.username.as_str(), login.password.as_str()), ("user", "secret"));
    }

    #[test]
    fn packets_are_read_however_they_are_cut() {
        let bytes = [0x20, 2, 0, 5, 0x40, 2, 1, 2, 0xd0, 0];
        for cut in 0..bytes.len() {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(packet) = take(&mut buffer).unwrap() {
                    got.push(packet);
                }
            }
            assert_eq!(got, [Incoming::ConnAck(5), Incoming::PubAck(258), Incoming::PingResp]);
        }
    }

    #[test]
    fn what_no_broker_sends_a_publisher_is_an_error() {
        for bytes in [&[0x30, 2, 0, 0][..], &[0x40, 3, 0, 0, 0], &[0x20, 0xff, 0xff], &[0x00, 0]] {
            assert!(take(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}
