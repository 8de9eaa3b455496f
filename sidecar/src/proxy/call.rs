//! One request and its response on an HTTP/2 connection to the engine. gRPC needs one; everything else can have one.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;

use super::client::Client;
use super::exchange::Failure;
use super::forward::Awaited;
use super::request_body::{BodyError, RequestBody};
use crate::tokens::grpc::RequestReader;

/// What the engine may send on one stream, and on all of them, before it was taken.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What is kept for an engine that does not take it.
const SEND_BUFFER: usize = 64 * 1024;

/// Largest head of a response.
const MAX_HEAD: u32 = 64 * 1024;

/// A request on its way.
pub(super) struct Call {
    answer: Pin<Box<dyn Future<Output = Result<Response<Incoming>, Failure>>>>,
    upload: Rc<UploadState>,
}

/// The body of a request, on its way to the engine.
pub(super) struct Upload {
    body: RequestBody,
    /// Is shown what is sent.
    prompts: Option<Rc<RefCell<RequestReader>>>,
    state: Rc<UploadState>,
}

/// Stops a request that is still sent while its answer is ended here: as long as one side of a stream is used, the
/// other is not told that nobody wants it any more.
#[derive(Clone)]
pub(super) struct Stop(Rc<UploadState>);

#[derive(Default)]
struct UploadState {
    heard_client: Cell<bool>,
    waits_for_client: Cell<bool>,
    stopped: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Stop {
    /// Nothing more is sent.
    pub(super) fn stop(&self) {
        self.0.stopped.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl Call {
    /// Sends on the connection that `client` has, or on a new one.
    /// A new one has to stand within `connect`.
    /// `prompts` is shown what is sent.
    pub(super) fn new(
        client: Rc<Client>,
        request: Request<RequestBody>,
        connect: Option<Duration>,
        prompts: Option<Rc<RefCell<RequestReader>>>,
    ) -> Self {
        let upload = Rc::new(UploadState::default());
        let request = request.map(|body| Upload { body, prompts, state: upload.clone() });
        Self { answer: Box::pin(send(client, request, connect)), upload }
    }

    /// Stops what is still sent of the request.
    pub(super) fn stop(&self) -> Stop {
        Stop(self.upload.clone())
    }
}

impl Awaited for Call {
    type Answer = Response<Incoming>;

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Answer, Failure>> {
        self.answer.as_mut().poll(cx)
    }

    fn heard_client(&mut self) -> bool {
        self.upload.heard_client.replace(false)
    }

    fn waits_for_client(&self) -> bool {
        self.upload.waits_for_client.get()
    }
}

/// A connection that the engine has just closed gives the request back, which then is sent on another, once.
async fn send(
    client: Rc<Client>,
    request: Request<Upload>,
    connect: Option<Duration>,
) -> Result<Response<Incoming>, Failure> {
    let error = match try_send(&client, client.pool.http2(), request, connect).await? {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let mut error = error;
    match error.take_message() {
        Some(request) => {
            let sent = try_send(&client, None, request, connect).await?;
            sent.map_err(|error| Failure::Http2(error.into_error()))
        }
        None => Err(Failure::Http2(error.into_error())),
    }
}

type Sent = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<Upload>>>;

async fn try_send(
    client: &Client,
    sender: Option<SendRequest<Upload>>,
    request: Request<Upload>,
    limit: Option<Duration>,
) -> Result<Sent, Failure> {
    let mut sender = match sender {
        Some(sender) => sender,
        None => connect(client, limit).await?,
    };
    Ok(sender.try_send_request(request).await)
}

async fn connect(client: &Client, limit: Option<Duration>) -> Result<SendRequest<Upload>, Failure> {
    let stream = client.target.connect(limit).await.map_err(Failure::Connect)?;
    let (sender, connection) = http2::Builder::new(Local)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(SEND_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Failure::Http2)?;
    tokio::task::spawn_local(async move {
        // Whoever waits for an answer on it is told that it ended.
        let _ = connection.await;
    });
    client.pool.put_http2(sender.clone());
    Ok(sender)
}

/// Runs what hyper wants to run in this thread.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let upload = self.get_mut();
        if upload.state.stopped.get() {
            return Poll::Ready(None);
        }
        upload.state.waits_for_client.set(true);
        let Poll::Ready(frame) = Pin::new(&mut upload.body).poll_frame(cx) else {
            upload.state.waker.set(Some(cx.waker().clone()));
            return Poll::Pending;
        };
        upload.state.waits_for_client.set(false);
        upload.state.heard_client.set(true);
        if let (Some(prompts), Some(Ok(frame))) = (&upload.prompts, &frame)
            && let Some(data) = frame.data_ref()
        {
            prompts.borrow_mut().feed(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
