//! A client's connection from its first byte to its last, when it speaks HTTP/1.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Version};
use http_body::Body as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::answer::{Answer, own};
use super::body::AnswerBody;
use super::client::{Client, SWEEP, Switched, Turn};
use super::codec::{AnswerHead, BadHead, Delimited, ReceivedHead};
use super::detect::{Spoken, detect};
use super::exchange::Failure;
use super::http2::{self, Origin};
use super::outbox::Outbox;
use super::request_body::{BodyError, RequestBody};
use super::wire::{NoRequest, Wire};
use super::{handler, splice};
use crate::clock::Moment;
use crate::metrics::ProtocolRefusal;
use crate::pressure::Level;
use crate::refusal::{self, Form, Trouble};
use crate::request_log;

/// How much is read, and for how long, from a client that still sends when its connection is being closed. Closing
/// at once would reset it, and with that take away the answer it has not read yet.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(10);
/// The same while memory is scarce.
const HURRIED_LINGER: Duration = Duration::from_secs(1);

/// Serves a connection that arrived at a guarded port.
pub(super) async fn serve(stream: TcpStream, origin: Origin) {
    match Box::pin(detect(&stream)).await {
        Ok(Ok(Spoken::Http1)) => drive(stream, Rc::new(Client::of_connection(&origin))).await,
        Ok(Ok(Spoken::Http2)) => Box::pin(http2::drive(stream, origin)).await,
        Ok(Err(refusal)) => request_log::protocol_refused(&origin.shared, origin.address, refusal),
        Err(_) => {}
    }
}

async fn drive(stream: TcpStream, client: Rc<Client>) {
    let wire = Rc::new(Wire::new(stream, client.clone()));
    let ended = serve_until_swept_away(&wire, &client).await;
    // Nothing that could read of it is left: the body of a request ends with its answer.
    let Some((stream, early)) = Rc::into_inner(wire).map(Wire::into_parts) else { return };
    match (ended, client.switched.take()) {
        (Ok(()), Some(Switched { upstream, progress })) => {
            Box::pin(splice::switched(stream, &early, upstream)).await;
            drop(progress);
        }
        (ended, _) => {
            if let Err(ended) = ended {
                ended.count(&client);
            }
            Box::pin(linger(stream, &client)).await;
        }
    }
}

/// Serves requests until the connection ends, and looks now and then whether it has waited too long.
async fn serve_until_swept_away(wire: &Rc<Wire>, client: &Rc<Client>) -> Result<(), Ended> {
    let mut requests = pin!(serve_requests(wire, client));
    let mut sweep = pin!(sleep(SWEEP));
    poll_fn(|cx| {
        let _moment = Moment::begin();
        if let Poll::Ready(ended) = requests.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        while sweep.as_mut().poll(cx).is_ready() {
            sweep.as_mut().reset(Instant::now() + SWEEP);
            client.pool.drop_stale(client.shared.clock.now());
            if client.waits_in_vain() {
                return Poll::Ready(Err(Ended::InVain(client.turn.get())));
            }
        }
        Poll::Pending
    })
    .await
}

/// Serves one request after the other, until one is the last.
async fn serve_requests(wire: &Rc<Wire>, client: &Rc<Client>) -> Result<(), Ended> {
    loop {
        if wire.has_begun_next() {
            client.turn_to(Turn::Head);
        }
        let head = match poll_fn(|cx| wire.poll_request(cx)).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(()),
            Err(NoRequest::Gone) => return Err(Ended::Broken),
            Err(NoRequest::Bad(bad)) => return Err(Box::pin(turn_down(wire, client, bad)).await),
        };
        let mut sending = answer(wire, client, head).await?;
        poll_fn(|cx| sending.poll(cx, wire, client)).await?;
        if !sending.keep_alive || !wire.has_whole_request() {
            return Ok(());
        }
        client.request_over();
    }
}

/// Answers one request, as far as the head of the answer.
async fn answer(wire: &Rc<Wire>, client: &Rc<Client>, head: ReceivedHead) -> Result<Sending, Ended> {
    let asked = Asked {
        method: head.parts.method.clone(),
        version: head.parts.version,
        keep_alive: head.keep_alive,
        takes_trailers: head.takes_trailers,
    };
    let body = RequestBody::of_wire(wire.clone());
    let mut handling = Box::pin(handler::handle(client.clone(), head.parts, head.framing, body));
    let answer = poll_fn(|cx| {
        let answered = handling.as_mut().poll(cx);
        if answered.is_pending() {
            wire.poll_interim(cx)?;
            wire.poll_left(cx)?;
        }
        answered.map(Ok::<_, Ended>)
    })
    .await?;
    match answer {
        Ok(answer) => Ok(Sending::new(client, &asked, answer)),
        Err(Failure::Client(BodyError::Broken(_))) => {
            Err(Box::pin(turn_down(wire, client, BadHead::Malformed)).await)
        }
        Err(_) => Err(Ended::Broken),
    }
}

/// What is not understood is answered, and is the last.
async fn turn_down(wire: &Wire, client: &Client, bad: BadHead) -> Ended {
    let (trouble, reason) = match bad {
        BadHead::Malformed => (Trouble::Malformed, ProtocolRefusal::Malformed),
        BadHead::TooLarge => (Trouble::HeadTooLarge, ProtocolRefusal::HeadTooLarge),
        BadHead::TargetTooLong => (Trouble::TargetTooLong, ProtocolRefusal::HeadTooLarge),
    };
    let asked =
        Asked { method: Method::GET, version: Version::HTTP_11, keep_alive: false, takes_trailers: false };
    let answer = own(client, refusal::trouble(trouble, Form::OpenAi), true);
    let mut sending = Sending::new(client, &asked, answer);
    match poll_fn(|cx| sending.poll(cx, wire, client)).await {
        Ok(()) => Ended::Refused(reason),
        Err(ended) => ended,
    }
}

/// What an answer has to know of its request.
struct Asked {
    method: Method,
    version: Version,
    keep_alive: bool,
    takes_trailers: bool,
}

/// An answer on its way to the client.
struct Sending {
    outbox: Outbox,
    /// Until it is over.
    body: Option<AnswerBody>,
    delimited: Delimited,
    /// Another request may follow.
    keep_alive: bool,
    takes_trailers: bool,
    /// The body ended before its end. What came of it is sent first.
    failed: bool,
}

impl Sending {
    fn new(client: &Client, asked: &Asked, answer: Answer) -> Self {
        let (parts, body) = answer.into_parts();
        // What is left of interim responses goes first.
        let mut head = std::mem::take(&mut *client.interim.borrow_mut());
        head.reserve(1024);
        let (delimited, keep_alive) = AnswerHead {
            status: parts.status,
            headers: &parts.headers,
            length: body.size_hint().exact(),
            method: &asked.method,
            version: asked.version,
            keep_alive: asked.keep_alive,
        }
        .encode(&mut head);
        let goes_on = delimited != Delimited::Bodiless && !body.is_end_stream();
        let mut sending = Self {
            outbox: Outbox::new(head),
            body: Some(body).filter(|_| goes_on),
            delimited,
            keep_alive,
            takes_trailers: asked.takes_trailers,
            failed: false,
        };
        if !goes_on {
            sending.end(None);
        }
        sending
    }

    /// Ready when all of it was sent.
    fn poll(&mut self, cx: &mut Context<'_>, wire: &Wire, client: &Client) -> Poll<Result<(), Ended>> {
        loop {
            self.poll_take(cx);
            client.flushed(self.outbox.is_empty());
            if self.outbox.is_empty() {
                return match self.body {
                    _ if self.failed => Poll::Ready(Err(Ended::Broken)),
                    None => Poll::Ready(Ok(())),
                    Some(_) => {
                        wire.poll_left(cx)?;
                        Poll::Pending
                    }
                };
            }
            if wire.poll_send(cx, &mut self.outbox)?.is_pending() {
                wire.poll_left(cx)?;
                return Poll::Pending;
            }
        }
    }

    /// Takes of the body what is there, as long as there is room for it.
    fn poll_take(&mut self, cx: &mut Context<'_>) {
        while !self.outbox.is_full() && !self.failed {
            let Some(body) = &mut self.body else { return };
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else { return };
            let is_last = body.is_end_stream();
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.outbox.push(data, self.delimited == Delimited::Chunked);
                        if is_last {
                            self.end(None);
                        }
                    }
                    Err(frame) => self.end(frame.into_trailers().ok().as_ref()),
                },
                Some(Err(_)) => self.failed = true,
                None => self.end(None),
            }
        }
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) {
        self.body = None;
        if self.delimited == Delimited::Chunked {
            self.outbox.end_chunks(trailers.filter(|_| self.takes_trailers));
        }
    }
}

/// Why a connection ended badly.
enum Ended {
    InVain(Turn),
    Refused(ProtocolRefusal),
    /// By the client, or because an answer could not be given or not be ended.
    Broken,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl Ended {
    fn count(&self, client: &Client) {
        let reason = match self {
            Self::Refused(reason) => *reason,
            Self::InVain(Turn::Head) => ProtocolRefusal::HeadTimeout,
            Self::InVain(_) | Self::Broken => return,
        };
        request_log::protocol_refused(&client.shared, client.address, reason);
    }
}

/// Ends a connection so that what was sent arrives.
async fn linger(mut stream: TcpStream, client: &Client) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let at_most = if client.shared.pressure.level() == Level::Calm { LINGER } else { HURRIED_LINGER };
    // Not in the task itself, where it would take its room for as long as the connection lasts.
    let mut sink = vec![0; 4096];
    let mut left = LINGER_BYTES;
    let _ = tokio::time::timeout(at_most, async {
        while let Ok(read) = stream.read(&mut sink).await
            && read > 0
            && left > read
        {
            left -= read;
        }
    })
    .await;
}
