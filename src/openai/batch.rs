//! What a batch says of itself when it has failed (protocol facts h): an error in its own list, not an answer of the API.

use serde::Serialize;

use crate::domain::{batch_queue::QueueFull, figures::grouped};

/// An item of a batch's `errors.data`. All four keys are always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchError {
    pub code: &'static str,
    pub message: String,
    pub param: Option<String>,
    /// Of the input file, from 1 on.
    pub line: Option<u64>,
}

impl BatchError {
    /// The batch would have been more than the queue takes. The project takes the place of the organization.
    pub fn queue_full(full: &QueueFull, model: &str, project: &str) -> Self {
        let message = format!(
            "Enqueued token limit reached for {model} in organization {project}. Limit: {} enqueued tokens. Please try \
             again once some in_progress batches have been completed.",
            grouped(full.limit)
        );
        Self { code: "token_limit_exceeded", message, param: None, line: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_told_in_openais_words() {
        let full = QueueFull { limit: 900_000, enqueued: 899_000, requested: 2_000 };
        let error = BatchError::queue_full(&full, "gpt-4o", "org-redacted");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":"token_limit_exceeded","message":"Enqueued token limit reached for gpt-4o in organization org-redacted. Limit: 900,000 enqueued tokens. Please try again once some in_progress batches have been completed.","param":null,"line":null}"#
        );
    }
}
