//! What a log does not say and was made up: nobody shall take it for recorded.

use tidegate_policy::PolicyDocument;

use super::clients::column;
use super::clients::{CALLERS, Clients};
use super::log::Log;

pub(crate) fn of(log: &Log, document: &PolicyDocument, clients: &Clients<'_>) -> Vec<String> {
    let survey = &log.survey;
    let by_header =
        document.priority.from.first().is_some_and(|from| survey.headers.contains(column(from).as_str()));
    let unanswered = survey.requests - survey.answered;
    let gpu = document.tiers.as_ref().is_some_and(|tiers| tiers.gpu_memory.is_some());
    let unused = clients.unused();
    let notes = [
        (survey.priorities == 0 && !by_header)
            .then(|| "no priority in the log: one in five asks for high, one in five for low".to_owned()),
        (survey.keys == 0 && survey.headers.len() == unused.len())
            .then(|| format!("no key in the log: {CALLERS} callers take turns")),
        (survey.clients == 0)
            .then(|| "no client in the log: every caller has an address of its own".to_owned()),
        (survey.tokens == 0).then(|| "no tokens in the log: prompts and answers of 1".to_owned()),
        (survey.answered == 0)
            .then(|| "no latencies in the log: they are those of the engine model".to_owned()),
        (survey.answered > 0 && unanswered > 0).then(|| {
            format!("{unanswered} requests have no latencies: each is answered as the one before it")
        }),
        (survey.answered > 0 && gpu)
            .then(|| "recorded latencies come without GPU memory: its tier has no reading".to_owned()),
        (!unused.is_empty()).then(|| format!("columns that nothing reads: {}", unused.join(", "))),
    ];
    notes.into_iter().flatten().collect()
}
