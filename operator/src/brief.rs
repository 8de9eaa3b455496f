//! Errors in one line that says what was wrong. `kube` prints the whole `Status` of a refusal, and of a failed
//! connection only that there was one.

use std::error::Error;

/// What the API server said, or the outermost and the innermost cause.
pub(crate) fn brief(error: &(dyn Error + 'static)) -> String {
    let chain = || std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    let said = chain().find_map(|error| match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(status.message.clone()),
        _ => None,
    });
    let text = said.unwrap_or_else(|| {
        let (first, last) = (error.to_string(), chain().last().map(ToString::to_string).unwrap_or_default());
        if first.contains(&last) { first } else { format!("{first}: {last}") }
    });
    text.replace('\n', " ")
}

/// The same with what was being done.
pub(crate) fn in_context(error: &anyhow::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", brief(cause)))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_message_alone() {
        let status = Status::failure("pods is forbidden", "Forbidden").with_code(403);
        let error = kube::runtime::watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        assert_eq!(brief(&error), "pods is forbidden");
    }

    #[test]
    fn a_failed_connection_is_told_with_its_cause() {
        let cause = std::io::Error::other("connection refused");
        let error = kube::Error::Service(Box::new(cause));
        assert_eq!(brief(&error), "ServiceError: connection refused");
    }

    #[test]
    fn what_was_being_done_comes_first() {
        let status = Status::failure("secrets is forbidden", "Forbidden").with_code(403);
        let error = anyhow::Error::new(kube::Error::Api(Box::new(status))).context("Secret a cannot be read");
        assert_eq!(in_context(&error), "Secret a cannot be read: secrets is forbidden");
    }
}
