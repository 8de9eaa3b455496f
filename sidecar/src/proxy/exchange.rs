//! One request and its response on a connection to the engine.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};

use super::client::Turn;
use super::codec::{BodyDecoder, Broken, Decoded, ResponseHead, parse_response};
use super::forward::Awaited;
use super::patience::Late;
use super::request_body::BodyError;
use super::sender::{Sender, Unsent};
use super::upstream::Upstream;

/// No more interim responses are kept than fit into this and one more.
const MAX_INTERIM: usize = 4 * 1024;

/// An engine that announces its answer more often has none.
const MOST_INTERIM: u16 = 1000;

/// What is read at once of an answer whose head is not there. With the head comes what the engine has sent behind it,
/// and is kept while the client takes none of it: with more, stalled streams would cost more.
const HEAD_READ: usize = 20 * 1024;

/// The same for a stream of HTTP/2: a client has a hundred of them on one connection, and stalls all by opening no window.
const HEAD_READ_OF_STREAM: usize = 8 * 1024;

/// Why there is no response, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The client is gone: nobody waits for the response.
    #[error("the client went away: {0}")]
    Client(BodyError),
    /// The client's body is not as long as its head said.
    #[error("the client's body is not as long as its head said")]
    Length,
    /// The tokens of a limit have run out, and the answer cannot be ended well.
    #[error("the tokens of a limit have run out under a compressed stream")]
    Exhausted,
    /// The engine closed the connection without a byte of a response.
    #[error("the engine closed the connection without an answer")]
    ClosedUnanswered,
    /// There is no connection: the engine never had the request.
    #[error("no connection to the engine: {0}")]
    Connect(io::Error),
    /// The connection failed.
    #[error("the connection to the engine failed: {0}")]
    Io(#[from] io::Error),
    /// The HTTP/2 connection failed, or the engine does not speak it.
    #[error("the HTTP/2 connection to the engine failed: {}", of_hyper(.0))]
    Http2(#[source] hyper::Error),
    /// The engine does not speak HTTP/1.1.
    #[error("the engine sent {0}")]
    Broken(#[from] Broken),
    /// What the client asks for has no form that the engine could read.
    #[error("the request's URL cannot be written for the engine")]
    Unwritable,
    /// A time limit is over.
    #[error("the engine was too late with {}", .0.as_str())]
    Late(Late),
}

/// hyper keeps what it says apart from what it knows.
fn of_hyper(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// A piece of a response's body.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// A request on its way and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    upstream: Upstream,
    sender: Sender,
    method: Method,
    upgrade: bool,
    body: BodyDecoder,
    reusable: bool,
    send_failed: bool,
    /// Interim responses that the client is to see, none when it would not understand them.
    interim: Option<BytesMut>,
    /// How many there were.
    announced: u16,
    head_read: usize,
}

impl Exchange {
    /// Sends with `sender` over `upstream`. `upgrade`: the request asks for one, so 101 is an answer to it.
    pub(super) fn new(upstream: Upstream, sender: Sender, method: Method, upgrade: bool) -> Self {
        Self {
            upstream,
            sender,
            method,
            upgrade,
            body: BodyDecoder::Done,
            reusable: true,
            send_failed: false,
            interim: None,
            announced: 0,
            head_read: HEAD_READ,
        }
    }

    /// The client understands interim responses.
    pub(super) fn pass_interim_on(&mut self) {
        self.interim = Some(BytesMut::new());
    }

    /// The client has other streams on the same connection.
    pub(super) fn read_little_at_first(&mut self) {
        self.head_read = HEAD_READ_OF_STREAM;
    }

    /// 100 answers an expectation, and those are not passed on; the client's is answered before the engine has one to answer.
    fn keep_interim(&mut self, head: &ResponseHead) -> Result<(), Broken> {
        self.announced += 1;
        if self.announced > MOST_INTERIM {
            return Err(Broken("more than 1000 interim responses"));
        }
        let kept = self.interim.as_mut().filter(|kept| kept.len() < MAX_INTERIM);
        if let Some(kept) = kept.filter(|_| head.status != StatusCode::CONTINUE) {
            head.encode_interim(kept);
        }
        Ok(())
    }

    /// Whether this is not the first exchange on its connection.
    pub(super) fn on_reused_connection(&self) -> bool {
        self.upstream.reused
    }

    /// The connection, if it can carry another exchange after this one.
    pub(super) fn into_reusable(self) -> Option<Upstream> {
        // A request that could not be sent whole leaves its sender unfinished.
        let clean = self.body.is_done() && self.sender.is_done() && self.upstream.received.is_empty();
        (self.reusable && clean).then_some(self.upstream)
    }

    /// The connection, for whatever protocol it was switched to.
    pub(super) fn into_upstream(self) -> Upstream {
        self.upstream
    }

    /// Sends, and receives the final head of the response.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Failure>> {
        self.poll_send(cx)?;
        loop {
            if !self.upstream.received.is_empty() {
                match parse_response(&mut self.upstream.received, &self.method)? {
                    Some(head) if self.is_final(head.status)? => return Poll::Ready(Ok(self.answered(head))),
                    Some(head) => {
                        self.keep_interim(&head)?;
                        continue;
                    }
                    None => {}
                }
            }
            match ready!(self.upstream.poll_receive(cx, self.head_read)) {
                Ok(0) if self.upstream.received.is_empty() => {
                    return Poll::Ready(Err(Failure::ClosedUnanswered));
                }
                Ok(0) => return Poll::Ready(Err(Broken("an end in the middle of a head").into())),
                Ok(_) => {}
                // What a closed connection answers to a request that crossed with the close.
                Err(error) if is_reset(&error) && self.upstream.received.is_empty() => {
                    return Poll::Ready(Err(Failure::ClosedUnanswered));
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn is_final(&self, status: StatusCode) -> Result<bool, Broken> {
        match status {
            StatusCode::SWITCHING_PROTOCOLS if self.upgrade && self.sender.is_done() => Ok(true),
            StatusCode::SWITCHING_PROTOCOLS if self.upgrade => {
                Err(Broken("a switch of protocols in the middle of a request"))
            }
            StatusCode::SWITCHING_PROTOCOLS => Err(Broken("a switch of protocols that nobody has asked for")),
            status => Ok(!status.is_informational()),
        }
    }

    fn answered(&mut self, mut head: ResponseHead) -> ResponseHead {
        self.body = std::mem::replace(&mut head.body, BodyDecoder::Done);
        self.reusable &= head.keep_alive;
        head
    }

    /// The rest of the body in bytes, where it is known from the head.
    pub(super) fn length(&self) -> Option<u64> {
        match self.body {
            BodyDecoder::Done => Some(0),
            BodyDecoder::Length(length) => Some(length),
            BodyDecoder::Chunked { .. } | BodyDecoder::UntilClose => None,
        }
    }

    /// Whether the request was sent whole.
    pub(super) fn is_sent(&self) -> bool {
        self.sender.is_done()
    }

    /// Whether the response is whole.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Goes on sending, and receives more of the body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Failure>> {
        self.poll_send(cx)?;
        loop {
            match self.body.decode(&mut self.upstream.received)? {
                Decoded::Data(data) => return Poll::Ready(Ok(Piece::Data(data))),
                Decoded::Trailers(trailers) => return Poll::Ready(Ok(Piece::Trailers(trailers))),
                Decoded::End => return Poll::Ready(Ok(Piece::End)),
                Decoded::NeedMore => {}
            }
            if ready!(self.upstream.poll_receive(cx, usize::MAX))? == 0 {
                self.body.closed()?;
            }
        }
    }

    /// The engine may answer before it has taken the request, and may close its reading side with that: not being
    /// able to send is no failure as long as there is an answer to read.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.send_failed || self.sender.is_done() {
            return Ok(());
        }
        match self.sender.poll_send(cx, &mut self.upstream.stream) {
            Poll::Pending | Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(Unsent::Client(error))) => Err(Failure::Client(error)),
            Poll::Ready(Err(Unsent::Length)) => Err(Failure::Length),
            Poll::Ready(Err(Unsent::Engine)) => {
                self.send_failed = true;
                Ok(())
            }
        }
    }
}

impl Awaited for Exchange {
    type Answer = ResponseHead;

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Failure>> {
        self.poll_head(cx)
    }

    fn turn(&self) -> Turn {
        if self.sender.waits_for_client() { Turn::Body } else { Turn::Engine }
    }

    fn heard_client(&mut self) -> bool {
        self.sender.heard_client()
    }

    fn waits_for_client(&self) -> bool {
        self.sender.waits_for_client()
    }

    fn take_interim(&mut self) -> Option<BytesMut> {
        self.interim.as_mut().filter(|kept| !kept.is_empty()).map(BytesMut::split)
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
