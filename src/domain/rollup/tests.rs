use proptest::prelude::*;

use super::*;

fn any_cell() -> impl Strategy<Value = Cell> {
    let quantity = prop_oneof![3 => Just(0), 3 => 0..3_000_u64, 1 => 0..=MAX_SUM / 64];
    let usage = prop::collection::vec(quantity, LineItem::COUNT);
    (0..2_000_u32, 0..300_u32, 0..1_000_000_u64, usage).prop_map(|(api_key, tariff, requests, quantities)| {
        let usage = LineItem::ALL.into_iter().zip(quantities).fold(Usage::default(), |u, (item, n)| u.with(item, n));
        Cell { api_key, tariff, requests, usage }
    })
}

proptest! {
    #[test]
    fn what_is_packed_comes_out_again(cells in prop::collection::vec(any_cell(), 0..40)) {
        let mut rollup = Rollup::default();
        for cell in &cells {
            rollup.add(cell).unwrap();
        }
        let bytes = rollup.encode();
        let read: Vec<_> = Cells::of(&bytes).unwrap().collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read, rollup.cells().collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(cells) = Cells::of(&bytes) {
            let _ = cells.collect::<Result<Vec<_>, _>>();
        }
    }
}

#[test]
fn cells_add_up_where_they_belong() {
    let cell = |api_key, tariff, text| Cell {
        api_key,
        tariff,
        requests: 1,
        usage: Usage::default().with(LineItem::InputText, text).with(LineItem::OutputAudio, 300),
    };
    let mut rollup = Rollup::default();
    for cell in [cell(1, 1, 5), cell(1, 2, 7), cell(2, 1, 200), cell(3, 9, 1)] {
        rollup.add(&cell).unwrap();
    }
    let bytes = rollup.encode();
    let mut sums = Totals::default();
    let place = |key, tariff| match (key, tariff) {
        (3, _) => Place::Nowhere,
        (_, tariff) => Place::Of(tariff),
    };
    Cells::of(&bytes).unwrap().add_up(&mut sums, place).unwrap();
    let usage = |text, audio| Usage::default().with(LineItem::InputText, text).with(LineItem::OutputAudio, audio);
    assert_eq!(
        sums.into_iter().collect::<BTreeMap<_, _>>(),
        [(1, (2, usage(205, 600))), (2, (1, usage(7, 300)))].into()
    );
    let unknown = |_, _| Place::<u32>::Unknown;
    assert_eq!(Cells::of(&bytes).unwrap().add_up(&mut Totals::default(), unknown), Err(RollupError::Unreadable));
}

#[test]
fn a_coarser_rollup_has_the_same_sums() {
    let usage = Usage::default().with(LineItem::InputText, 5);
    let mut rollup = Rollup::default();
    for (api_key, tariff) in [(1, 1), (2, 1), (3, 1), (3, 2)] {
        rollup.add(&Cell { api_key, tariff, requests: 1, usage }).unwrap();
    }
    let coarser = rollup.coarser(|key| Some(if key == 3 { 3 } else { 1 })).unwrap();
    let found: Vec<_> = coarser.cells().map(|cell| (cell.api_key, cell.tariff, cell.requests)).collect();
    assert_eq!(found, [(1, 1, 2), (3, 1, 1), (3, 2, 1)]);
    assert!(rollup.coarser(|_| None).is_err());
}

#[test]
fn a_sum_past_63_bits_is_refused() {
    let usage = Usage::default().with(LineItem::InputText, MAX_SUM);
    let cell = Cell { api_key: 1, tariff: 1, requests: 1, usage };
    let mut rollup = Rollup::default();
    rollup.add(&cell).unwrap();
    assert_eq!(rollup.add(&cell), Err(RollupError::Overflow));
}

#[test]
fn a_small_cell_takes_few_bytes() {
    let usage = Usage::default().with(LineItem::InputText, 120).with(LineItem::OutputText, 90);
    let mut rollup = Rollup::default();
    rollup.add(&Cell { api_key: 7, tariff: 3, requests: 1, usage }).unwrap();
    assert_eq!(rollup.encode().len(), 1 + 5);
}

#[test]
fn the_layout_before_is_read() {
    // Key 7 at tariff 3: two requests, 120 of input text, 300 of output text (bits 0 and 7).
    let mut cells = Cells::of(&[LAYOUT_BEFORE, 7, 3, 2, 0x81, 0x01, 120, 0xac, 0x02]).unwrap();
    let usage = Usage::default().with(LineItem::InputText, 120).with(LineItem::OutputText, 300);
    assert_eq!(cells.next(), Some(Ok(Cell { api_key: 7, tariff: 3, requests: 2, usage })));
    assert_eq!(cells.next(), None);
}

#[test]
fn another_layout_is_refused() {
    assert!(Cells::of(&[]).is_err());
    assert!(Cells::of(&[3, 1, 1, 1, 0]).is_err());
    assert_eq!(Cells::of(&[LAYOUT, 1]).unwrap().next(), Some(Err(RollupError::Unreadable)));
}
