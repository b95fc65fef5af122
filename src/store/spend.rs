//! What the ledger says was spent in a month.

use super::{Store, StoreError, reports};
use crate::domain::{
    ids::ProjectId,
    money::Total,
    report::{Piece, Range, Selection, Width},
    spend::Month,
};

/// Amounts by project, several of one among them. Requests count in the month of their settlement.
pub async fn spent(store: &Store, month: Month) -> Result<Vec<(ProjectId, Total)>, StoreError> {
    let range = Range { start_s: month.start_s, end_s: month.end_s };
    let selection = Selection {
        pieces: vec![Piece { width: Width::Day, range }],
        bucket_width: Width::Day,
        bucket_starts: Vec::new(),
        by_api_key: false,
        by_project: true,
        by_model: false,
        by_service_tier: false,
        endpoints: None,
        project_ids: None,
        api_key_ids: None,
        models: None,
        batch: None,
    };
    let rows = reports::rows(store, &selection).await?.into_iter();
    let amounts = rows.filter_map(|row| row.project_id.map(|project| (project, row.lines)));
    Ok(amounts.flat_map(|(project, lines)| lines.into_iter().map(move |line| (project.clone(), line.amount))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{time::UnixNanos, usage::LineItem},
        store::reports::seed::{Settled, seed},
    };

    #[tokio::test]
    async fn a_months_spending_is_that_of_its_days_and_no_other() {
        const MARCH_2026: u64 = 1_772_323_200;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tollgate.db");
        let store = Store::open(&path).await.unwrap();
        let month = Month::of(UnixNanos::from_seconds(MARCH_2026 + 1_000_000));
        let entry = |at_s, project_id, api_key_id, pico: &'static [(LineItem, i64, i64)]| Settled {
            at_s,
            project_id,
            api_key_id,
            lines: pico,
            ..Settled::default()
        };
        let (one, two) = (&[(LineItem::InputText, 1, 1)], &[(LineItem::InputText, 1, 2), (LineItem::OutputText, 1, 3)]);
        seed(
            &path,
            &[
                entry(MARCH_2026 - 1, "proj_a", "key_a", one),
                entry(MARCH_2026, "proj_a", "key_a", two),
                entry(month.end_s - 1, "proj_a", "key_b", one),
                entry(month.end_s - 1, "proj_b", "key_c", two),
                entry(month.end_s, "proj_b", "key_c", one),
            ],
        )
        .await;
        let spent = spent(&store, month).await.unwrap();
        let of = |id: &str| {
            let amounts = spent.iter().filter(|(project, _)| project.as_str() == id);
            amounts.map(|(_, amount)| amount.pico()).sum::<i128>()
        };
        assert_eq!((of("proj_a"), of("proj_b")), (6, 5));
    }
}
