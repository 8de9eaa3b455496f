//! Which policy document is in force, and where the next one comes from.
//!
//! ```text
//!   file (standalone) ──┐
//!   stream (operator) ──┴─▶ Keeper::offer ──▶ engine of the data threads, store, metrics, status
//!   store, snapshot ── at the start only
//! ```
//!
//! A document that does not validate changes nothing: the last good one stays in force, and log, metric, status and
//! report say why. With no document at all everything passes (fail open: a pod without a policy is no pod to
//! refuse traffic for); the source `default` in status and metrics says so.

mod file;
mod lines;
mod report;
mod snapshot;
mod store;
mod stream;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tidegate_policy::PolicyDocument;
use tidegate_policy::report::RefusedDocument;
use tokio::sync::watch;
use tracing::{error, info, warn};

pub use file::follow as follow_file;
pub use stream::{Operator, follow as follow_operator};

use crate::args::PolicyArgs;
use crate::identity::Issuers;
use crate::shared::Shared;
use store::Store;

/// Where a document came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Nowhere: everything passes.
    Default,
    /// The pod's annotation, written at admission.
    Snapshot,
    /// What was accepted before a restart.
    Store,
    /// A file, without an operator.
    File,
    /// The operator.
    Stream,
}

impl Source {
    /// As in metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Snapshot => "snapshot",
            Self::Store => "store",
            Self::File => "file",
            Self::Stream => "stream",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known about the policy besides its content.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The document in force.
    pub document: Arc<PolicyDocument>,
    /// Its source.
    pub source: Source,
    /// The document that was refused last, when it is newer.
    pub refused: Option<RefusedDocument>,
    /// Whether the policy stream is up.
    pub operator_connected: bool,
    /// The operator says that no Service sends traffic here any more.
    pub endpoints_withdrawn: bool,
}

/// The documents at the start, in the order of preference, and why others were passed over.
#[derive(Debug)]
pub struct Start {
    document: PolicyDocument,
    source: Source,
    refused: Vec<RefusedDocument>,
}

impl Start {
    /// Reads what is there: the file, else the store, else the snapshot, else the default. Waits for nobody.
    pub fn read(policy: &PolicyArgs) -> Self {
        let file = policy.policy_file.as_deref();
        let store = policy.policy_store.clone().map(Store::new);
        let snapshot = policy.policy_snapshot.as_deref();
        let candidates: [(Source, Read); 3] = [
            (Source::File, file.map_or(Ok(None), |file| file::read(file).map(Some))),
            (Source::Store, store.map_or(Ok(None), |store| store.read())),
            (Source::Snapshot, snapshot.map_or(Ok(None), snapshot::read)),
        ];
        let mut refused = Vec::new();
        for (source, read) in candidates {
            match judge(read) {
                Ok(Some(document)) => return Self { document, source, refused },
                Ok(None) => {}
                Err(document) => {
                    warn!(%source, revision = document.revision, reason = document.message, "policy refused");
                    refused.push(document);
                }
            }
        }
        Self { document: PolicyDocument::default(), source: Source::Default, refused }
    }

    /// What the first engine obeys.
    pub fn document(&self) -> &PolicyDocument {
        &self.document
    }
}

/// JSON of a source, if it has any.
type Read = Result<Option<Vec<u8>>>;

fn judge(read: Read) -> Result<Option<PolicyDocument>, RefusedDocument> {
    read.map_err(|error| unreadable(&error))?.map(|json| parse(&json)).transpose()
}

fn parse(json: &[u8]) -> Result<PolicyDocument, RefusedDocument> {
    PolicyDocument::from_json(json).map_err(|errors| {
        let value: Option<serde_json::Value> = serde_json::from_slice(json).ok();
        let revision = value.as_ref().and_then(|value| value.get("revision")?.as_str());
        RefusedDocument { revision: revision.unwrap_or_default().to_owned(), message: errors.in_one_line() }
    })
}

fn unreadable(error: &anyhow::Error) -> RefusedDocument {
    RefusedDocument { revision: String::new(), message: format!("{error:#}") }
}

fn told_if_not_kept(kept: Result<()>) {
    if let Err(error) = kept {
        warn!(error = format!("{error:#}"), "policy is in force but will be unknown after a restart");
    }
}

/// Decides what is in force.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    store: Option<Store>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Keeper {
    /// Goes on from the start. `shared` has an engine for the document of `start`.
    pub fn new(shared: Arc<Shared>, start: Start, policy: &PolicyArgs) -> Self {
        info!(revision = start.document.revision, source = %start.source, "policy in force");
        shared.metrics.policy_applied(&start.document.revision, start.source.as_str());
        shared.issuers.store(Arc::new(Issuers::new(&start.document, None)));
        start.refused.iter().for_each(|_| shared.metrics.policy_refused());
        let state = State {
            document: Arc::new(start.document),
            source: start.source,
            refused: start.refused.into_iter().next(),
            operator_connected: false,
            endpoints_withdrawn: false,
        };
        let store = policy.policy_store.clone().map(Store::new);
        if let (Some(store), Source::File) = (&store, state.source) {
            // The file may be broken when a crashed worker is succeeded; the document of this start is then known.
            told_if_not_kept(store.keep(&state.document));
        }
        Self { shared, store, state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// What is known now.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Wakes when a report would say something new.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Something changed that a report tells.
    pub fn announce(&self) {
        self.changed.send_replace(());
    }

    /// Puts a document in force if it validates, and keeps it for the next start.
    pub async fn offer(&self, source: Source, json: &[u8]) {
        match parse(json) {
            Ok(document) => self.adopt(source, document).await,
            Err(refused) => self.refuse(source, refused),
        }
        self.announce();
    }

    /// The operator has the document that is in force here, wherever it came from.
    pub fn confirm(&self, revision: &str) {
        let mut state = self.lock();
        if state.document.revision == revision && state.source != Source::Stream {
            state.source = Source::Stream;
            self.shared.metrics.policy_applied(revision, Source::Stream.as_str());
        }
    }

    /// A document that can't even be read.
    pub fn refuse_unreadable(&self, source: Source, error: &anyhow::Error) {
        self.refuse(source, unreadable(error));
        self.announce();
    }

    /// The policy stream went up or down. A new one begins with Services sending traffic, and says otherwise.
    pub fn set_operator_connected(&self, connected: bool) {
        {
            let mut state = self.lock();
            state.operator_connected = connected;
            state.endpoints_withdrawn = false;
        }
        self.shared.metrics.operator_connected(connected);
        self.announce();
    }

    /// The operator tells whether Services still send traffic here.
    pub fn set_endpoints_withdrawn(&self, withdrawn: bool) {
        self.lock().endpoints_withdrawn = withdrawn;
    }

    async fn adopt(&self, source: Source, document: PolicyDocument) {
        let document = Arc::new(document);
        {
            let mut state = self.lock();
            state.refused = None;
            if state.document == document && state.source == source {
                return;
            }
            state.source = source;
            self.shared.metrics.policy_applied(&document.revision, source.as_str());
            if state.document == document {
                return;
            }
            // Before the engine: a rule that asks for a claim must not meet requests whose tokens nobody reads.
            let issuers = Issuers::new(&document, Some(&self.shared.issuers.load()));
            self.shared.issuers.store(Arc::new(issuers));
            let engine = self.shared.engine.load().succeed(&document, self.shared.clock.now());
            self.shared.answers.obey(engine.breaker_policy().and_then(|policy| policy.answer_cache()));
            self.shared.engine.store(Arc::new(engine));
            state.document = Arc::clone(&document);
        }
        info!(revision = document.revision, %source, "policy in force");
        self.keep(document).await;
    }

    /// Off this thread: a slow disk must not hold up the ticks.
    async fn keep(&self, document: Arc<PolicyDocument>) {
        let Some(store) = self.store.clone() else { return };
        if let Ok(kept) = tokio::task::spawn_blocking(move || store.keep(&document)).await {
            told_if_not_kept(kept);
        }
    }

    /// The same refusal again, as after a new connection, is not news.
    fn refuse(&self, source: Source, refused: RefusedDocument) {
        let mut state = self.lock();
        if state.refused.as_ref() == Some(&refused) {
            return;
        }
        let stays = state.document.revision.clone();
        error!(%source, revision = refused.revision, reason = refused.message, stays, "policy refused");
        state.refused = Some(refused);
        self.shared.metrics.policy_refused();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
