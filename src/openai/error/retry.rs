//! Whether and when to try again.

/// The longest time that a client of `OpenAI` waits before it tries again; told to wait longer, some try at once instead.
const LONGEST_WAIT_NANOS: u64 = 120_000_000_000;

/// What the answer says about trying again, on top of the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: clients follow the status.
    #[default]
    Unsaid,
    /// Again after this time (`retry-after`, `retry-after-ms`).
    After { nanos: u64 },
    /// There is room after this time, but a client that retries by itself would only spend more of the day's requests:
    /// the time is told, and `x-should-retry: false` with it.
    NotByItself { nanos: u64 },
    /// Do not (`x-should-retry: false`).
    No,
}

impl Retry {
    /// After which there is room again, where that is told.
    pub const fn wait_nanos(self) -> Option<u64> {
        match self {
            Self::After { nanos } | Self::NotByItself { nanos } => Some(nanos),
            Self::Unsaid | Self::No => None,
        }
    }

    /// Whether clients are told not to try again by themselves (`x-should-retry: false`).
    pub const fn is_advised_against(self) -> bool {
        match self {
            Self::Unsaid => false,
            Self::After { nanos } => nanos > LONGEST_WAIT_NANOS,
            Self::NotByItself { .. } | Self::No => true,
        }
    }
}
