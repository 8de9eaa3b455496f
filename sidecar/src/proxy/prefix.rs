//! The begin of a request's body, read before the decision where a rule needs it.
//!
//! No more than `--max-prefix-bytes` are read, and no more than tell something: up to the end of a JSON value, and of
//! what is no JSON the first piece; of a call of gRPC, its first message. What was read goes to the engine as it came,
//! before the rest. All requests together hold at most
//! [`Caps::prefix_total`](crate::caps::Caps); one for which there is no room is judged by what its head tells, so that
//! a flood of slow uploads makes estimates worse, and neither costs memory nor stops anybody.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderMap};
use tokio::time::timeout;

use super::request_body::{BodyError, RequestBody};
use crate::shared::Shared;
use crate::tokens::grpc::{Method, RequestReader};
use crate::tokens::prompt::{Prompt, PromptReader};

/// Either side of a dialogue may wait for the other: so long the first message of its client is waited for.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);

/// Reads the first message of a call. An error: the client has left.
pub(super) async fn read_call(
    shared: &Shared,
    method: Method,
    body: &mut RequestBody,
) -> Result<Prompt, BodyError> {
    let mut reader = RequestReader::new(method);
    let most = shared.caps.prefix_bytes;
    if let Some(room) = shared.prefixes.take(shared.caps.prefix_total).filter(|_| most > 0) {
        body.take_room(room);
        let read = read_ahead(body, most, |data| {
            reader.feed(data);
            reader.has_enough()
        });
        if method.is_dialogue() {
            timeout(FIRST_MESSAGE, read).await.unwrap_or(Ok(()))?;
        } else {
            read.await?;
        }
    }
    Ok(reader.finish())
}

/// Takes up to `most` bytes ahead, until `feed` has enough.
async fn read_ahead(
    body: &mut RequestBody,
    most: usize,
    mut feed: impl FnMut(&[u8]) -> bool,
) -> Result<(), BodyError> {
    let mut seen = 0;
    poll_fn(|cx| {
        loop {
            let early = body.early();
            let end = early.len().min(most);
            let enough = feed(&early[seen..end]);
            seen = end;
            if enough || seen == most || !ready!(body.poll_next(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await
}

/// Reads the begin of a body of `length` bytes, none when nobody says. An error: the client has left.
pub(super) async fn read(
    shared: &Shared,
    headers: &HeaderMap,
    body: &mut RequestBody,
    length: Option<u64>,
) -> Result<Prompt, BodyError> {
    let mut reader = PromptReader::default();
    // A body that its client has packed cannot be read: it is taken for a prompt of its size.
    let plain = headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    let most = if plain { shared.caps.prefix_bytes } else { 0 };
    if let Some(room) = shared.prefixes.take(shared.caps.prefix_total).filter(|_| most > 0) {
        body.take_room(room);
        read_ahead(body, most, |data| {
            reader.feed(data);
            reader.has_enough()
        })
        .await?;
    }
    Ok(reader.finish(length))
}
