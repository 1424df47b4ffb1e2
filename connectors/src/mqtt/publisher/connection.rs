//! One connection of the pool: writes in bursts, matches PUBACKs, comes back after a loss.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::wire::{self, Incoming};
use super::{Acked, PendingOne, PublishError, Target};

/// Told to the broker; it may drop us after one and a half times this without a packet.
const KEEP_ALIVE_S: u16 = 60;
/// An idle connection says something this often.
const PING_EVERY: Duration = Duration::from_secs(25);
/// A broker that owes an answer and sends nothing for this long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long a handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(15);
/// First and longest wait before connecting again; it doubles in between and is jittered by half.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A burst of writes goes out when it has this many bytes.
const BURST_LEN: usize = 64 * 1024;
/// MQTT's code for "server unavailable": worth another try.
const SERVER_UNAVAILABLE: u8 = 3;
/// Packet ids run from 1 to this.
const PACKET_IDS: u64 = u16::MAX as u64;

fn packet_id(number: u64) -> u16 {
    (number % PACKET_IDS) as u16 + 1
}

/// A message on its way.
pub(super) struct Outgoing {
    pub(super) topic: Box<str>,
    pub(super) payload: Bytes,
    pub(super) done: oneshot::Sender<Result<Acked, PublishError>>,
    pub(super) sent_at: Option<Instant>,
    pub(super) sends: u32,
    pub(super) _pending: PendingOne,
}

/// Why a connection ended.
enum End {
    /// The pool was closed and everything is acknowledged.
    Closed,
    /// Worth connecting again.
    Lost(String),
    /// The broker does not let us in.
    Refused(PublishError),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

pub(super) struct Connection {
    target: Arc<Target>,
    client_id: String,
    stream: Option<TcpStream>,
    inflight_max: usize,
    sends_max: u32,
    /// Number of the next message; its packet id follows from it.
    next: u64,
    /// Sent and not acknowledged, oldest first, with their numbers.
    inflight: VecDeque<(u64, Outgoing)>,
    /// Something was acknowledged on this connection.
    is_fruitful: bool,
    output: BytesMut,
    input: BytesMut,
    jitter: u64,
}

impl Connection {
    /// Makes the first connection, so that a wrong address or password is an error of the caller.
    pub(super) async fn connect(target: Arc<Target>, client_id: String, inflight_max: usize, sends_max: u32) -> Result<Self, PublishError> {
        let jitter = client_id.bytes().fold(u64::from(std::process::id()), |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        let mut connection = Self {
            target,
            client_id,
            stream: None,
            inflight_max,
            sends_max,
            next: 0,
            inflight: VecDeque::new(),
            is_fruitful: false,
            output: BytesMut::new(),
            input: BytesMut::new(),
            jitter,
        };
        match connection.handshake().await {
            Ok(stream) => connection.stream = Some(stream),
            Err(End::Refused(error)) => return Err(error),
            Err(End::Lost(reason)) => {
                return Err(PublishError::Connect {
                    address: connection.target.address(),
                    reason,
                });
            }
            Err(End::Closed) => return Err(PublishError::Closed),
        }
        Ok(connection)
    }

    /// Publishes what comes until the pool is closed or the broker refuses the login.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Outgoing>) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let stream = match self.stream.take() {
                Some(stream) => Ok(stream),
                None => self.handshake().await,
            };
            let end = match stream {
                Ok(stream) => self.talk(stream, &mut queue).await,
                Err(end) => end,
            };
            // A broker that lets us in and then stores nothing is not asked twenty times a second.
            if std::mem::take(&mut self.is_fruitful) {
                backoff = BACKOFF_MIN;
            }
            match end {
                End::Closed => return,
                End::Refused(error) => return self.fail_all(&error),
                End::Lost(reason) => {
                    metrics::counter!("flexmeter_publisher_reconnects_total").increment(1);
                    tracing::debug!(client_id = %self.client_id, reason, "connection lost");
                    self.give_up_on_the_oldest();
                }
            }
            if queue.is_closed() && queue.is_empty() && self.inflight.is_empty() {
                return;
            }
            tokio::time::sleep(self.jittered(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn handshake(&mut self) -> Result<TcpStream, End> {
        match tokio::time::timeout(HANDSHAKE_WAIT, self.shake_hands()).await {
            Ok(result) => result,
            Err(_) => Err(End::Lost(format!("no answer within {} s", HANDSHAKE_WAIT.as_secs()))),
        }
    }

    async fn shake_hands(&mut self) -> Result<TcpStream, End> {
        let mut stream = TcpStream::connect((self.target.host.as_str(), self.target.port)).await?;
        stream.set_nodelay(true)?;
        self.input.clear();
        self.output.clear();
        let login = self
            .target
            .login
            .as_ref()
            .map(|(user, password)| (user.as_str(), password.as_str()));
        wire::put_connect(&mut self.output, &self.client_id, login, KEEP_ALIVE_S);
        stream.write_all_buf(&mut self.output).await?;
        loop {
            match wire::take(&mut self.input) {
                Ok(Some(Incoming::ConnAck(0))) => return Ok(stream),
                Ok(Some(Incoming::ConnAck(SERVER_UNAVAILABLE))) => return Err(End::Lost("the server is unavailable".to_owned())),
                Ok(Some(Incoming::ConnAck(code))) => {
                    return Err(End::Refused(PublishError::Refused {
                        address: self.target.address(),
                        code,
                    }));
                }
                Ok(Some(_)) => return Err(End::Lost("the broker did not begin with CONNACK".to_owned())),
                Ok(None) => {}
                Err(unexpected) => return Err(End::Lost(unexpected.to_string())),
            }
            if stream.read_buf(&mut self.input).await? == 0 {
                return Err(End::Lost("closed before CONNACK".to_owned()));
            }
        }
    }

    /// Sends again what the last connection left, then whatever comes.
    async fn talk(&mut self, mut stream: TcpStream, queue: &mut mpsc::Receiver<Outgoing>) -> End {
        let now = Instant::now();
        for (number, message) in &mut self.inflight {
            message.sends += 1;
            wire::put_publish(&mut self.output, packet_id(*number), true, &message.topic, &message.payload);
        }
        let (mut last_in, mut last_out) = (now, now);
        let mut is_open = true;
        let mut pinged = false;
        let mut tick = tokio::time::interval(PING_EVERY / 5);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut reading, mut writing) = stream.split();
        loop {
            if !is_open && self.inflight.is_empty() && self.output.is_empty() {
                // The broker will see the end of the stream anyway.
                let _ = writing.write_all(&wire::DISCONNECT).await;
                let _ = writing.shutdown().await;
                return End::Closed;
            }
            // Reading goes on while a write waits: otherwise two full socket buffers could wait for each other.
            tokio::select! {
                written = writing.write_buf(&mut self.output), if !self.output.is_empty() => match written {
                    Ok(_) => last_out = Instant::now(),
                    Err(error) => return error.into(),
                },
                read = reading.read_buf(&mut self.input) => match read {
                    Ok(0) => return End::Lost("closed by the broker".to_owned()),
                    Ok(_) => {
                        last_in = Instant::now();
                        pinged = false;
                        if let Err(end) = self.take_answers(last_in) {
                            return end;
                        }
                    }
                    Err(error) => return error.into(),
                },
                next = queue.recv(), if is_open && self.has_room() => {
                    let now = Instant::now();
                    match next {
                        Some(message) => self.put(message, now),
                        None => is_open = false,
                    }
                    // What else waits goes out in the same write.
                    while self.has_room() {
                        let Ok(message) = queue.try_recv() else { break };
                        self.put(message, now);
                    }
                }
                _ = tick.tick() => {
                    let owed = pinged || !self.inflight.is_empty();
                    if owed && last_in.elapsed() > SILENCE_MAX {
                        return End::Lost(format!("silent for {} s", SILENCE_MAX.as_secs()));
                    }
                    if last_out.elapsed() > PING_EVERY {
                        self.output.extend_from_slice(&wire::PINGREQ);
                        pinged = true;
                    }
                }
            }
        }
    }

    fn put(&mut self, mut message: Outgoing, now: Instant) {
        wire::put_publish(&mut self.output, packet_id(self.next), false, &message.topic, &message.payload);
        message.sent_at = Some(now);
        message.sends = 1;
        self.inflight.push_back((self.next, message));
        self.next += 1;
    }

    /// Whether another message may be sent: it also needs a packet id that is not in flight.
    fn has_room(&self) -> bool {
        let ids_left = self.inflight.front().is_none_or(|(oldest, _)| self.next - oldest < PACKET_IDS);
        ids_left && self.inflight.len() < self.inflight_max && self.output.len() < BURST_LEN
    }

    fn take_answers(&mut self, now: Instant) -> Result<(), End> {
        loop {
            match wire::take(&mut self.input) {
                Ok(Some(Incoming::PubAck(id))) => {
                    // Brokers acknowledge in order, so it is nearly always the first.
                    let Some(at) = self.inflight.iter().position(|(number, _)| packet_id(*number) == id) else {
                        continue;
                    };
                    self.is_fruitful = true;
                    if let Some((_, message)) = self.inflight.remove(at) {
                        let acked = Acked {
                            sent_at: message.sent_at.unwrap_or(now),
                            acked_at: now,
                        };
                        // The caller may have stopped waiting.
                        let _ = message.done.send(Ok(acked));
                    }
                }
                Ok(Some(Incoming::PingResp)) => {}
                Ok(Some(Incoming::ConnAck(_))) => return Err(End::Lost("a second CONNACK".to_owned())),
                Ok(None) => return Ok(()),
                Err(unexpected) => return Err(End::Lost(unexpected.to_string())),
            }
        }
    }

    /// A message may itself be why the broker hangs up; the others behind it must not wait for ever.
    fn give_up_on_the_oldest(&mut self) {
        if self.inflight.front().is_some_and(|(_, oldest)| oldest.sends >= self.sends_max)
            && let Some((_, oldest)) = self.inflight.pop_front()
        {
            // The ones behind it have been sent as often without being looked at.
            for (_, message) in &mut self.inflight {
                message.sends = 1;
            }
            let _ = oldest.done.send(Err(PublishError::NotAcknowledged {
                topic: oldest.topic.into(),
                sends: oldest.sends,
            }));
        }
    }

    fn fail_all(&mut self, error: &PublishError) {
        tracing::warn!(client_id = %self.client_id, %error, "publisher gives up");
        for (_, message) in self.inflight.drain(..) {
            let _ = message.done.send(Err(error.clone()));
        }
    }

    /// Between half of `wait` and all of it, so that several hundred connections do not come back in one instant.
    fn jittered(&mut self, wait: Duration) -> Duration {
        self.jitter = self
            .jitter
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        wait / 2 + wait.mul_f64((self.jitter >> 40) as f64 / f64::from(1 << 24)) / 2
    }
}
