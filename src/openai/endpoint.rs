//! The endpoints that are forwarded: a closed list of constant paths, so no request can choose where it goes.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    ChatCompletions,
}

impl Endpoint {
    pub const ALL: [Self; 1] = [Self::ChatCompletions];

    /// As clients call it.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
        }
    }

    /// What follows the upstream's base URL, which ends in its own version.
    pub const fn upstream_path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
        }
    }

    /// The word in the ledger and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_the_version_and_the_upstream_path() {
        for endpoint in Endpoint::ALL {
            assert_eq!(endpoint.path(), format!("/v1{}", endpoint.upstream_path()));
        }
    }
}
