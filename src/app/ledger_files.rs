//! Sees to it that the ledger's files are where they were opened.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    store::{PutBack, Store},
};

/// A deleted ledger is back within a few seconds, and a glance costs two system calls.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct LedgerFiles {
    pub store: Arc<Store>,
    pub metrics: Arc<Metrics>,
}

impl LedgerFiles {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut failing = false;
        while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
            match self.store.put_back().await {
                Ok(None) => failing = false,
                Ok(Some(PutBack { database, set_aside })) => {
                    failing = false;
                    self.metrics.ledger_put_back.inc();
                    let database = database.display();
                    if let Some(aside) = set_aside {
                        let set_aside = aside.display();
                        tracing::error!(
                            %database, %set_aside,
                            "the ledger was replaced by another file while the gateway used it: the gateway's own is back in its \
                             place, the other one is kept; to go on with that one, stop the gateway first"
                        );
                    } else {
                        tracing::error!(%database, "the ledger's files were deleted: they are written anew, and nothing is lost");
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "the ledger's files were deleted or replaced, and cannot be put back yet: do not stop \
                            the gateway before they are, or what only they held is lost");
                    }
                    failing = true;
                }
            }
        }
    }
}
