//! Whether a limit held, by times seen from outside. The gateway admits a request between its sending and its arrival at the
//! upstream; what holds for no such time is a fault, and what may be the travel of requests is none.
//!
//! A bucket of `limit` units that refills at `limit` per minute admits at most `limit + limit * t / minute` in any span of
//! `t`. All requests that were sent since one time and have arrived by another were admitted between these two.

const MINUTE: i64 = 60_000_000_000;

/// Times in nanoseconds since the first request, here and below.
#[derive(Clone, Copy, Debug)]
pub struct Admitted {
    pub sent: i64,
    pub arrived: i64,
    /// When all of its answer was there: by then it is settled.
    pub answered: i64,
    /// Units that it used.
    pub units: i64,
    /// Units that it took from its admission until it was settled, which are not less.
    pub held: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct Refused {
    pub sent: i64,
    pub answered: i64,
}

/// The span in which most was admitted for its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub units: i64,
    /// Whole units that the limit allows.
    pub allowed: i64,
}

impl Span {
    pub const fn excess(self) -> i64 {
        if self.units > self.allowed { self.units - self.allowed } else { 0 }
    }

    fn of(units: i64, nanos: i64, limit: i64) -> Self {
        Self { units, allowed: limit + limit * nanos / MINUTE }
    }
}

/// Of all spans from a sending to an arrival, the one with the most units for its length.
pub fn worst_span(admitted: &[Admitted], limit: u32) -> Span {
    let limit = i64::from(limit);
    let mut by_arrival = admitted.to_vec();
    by_arrival.sort_unstable_by_key(|request| request.arrived);
    let ends: Vec<i64> = by_arrival.iter().map(|request| request.arrived).collect();
    let mut latest_first = admitted.to_vec();
    latest_first.sort_unstable_by_key(|request| std::cmp::Reverse(request.sent));
    // At each end: what was sent since the start under consideration and has arrived, less what refills by this end.
    let mut tree = Tree::new(ends.iter().map(|end| -limit * end).collect());
    let mut worst = (i64::MIN, 0, 0);
    for request in &latest_first {
        let from = ends.partition_point(|end| *end < request.arrived);
        tree.add(from..ends.len(), request.units * MINUTE);
        let after = ends.partition_point(|end| *end < request.sent);
        let (most, end) = tree.max(after..ends.len());
        worst = worst.max((most + limit * request.sent, request.sent, ends[end]));
    }
    let (_, start, end) = worst;
    let within = admitted.iter().filter(|request| request.sent >= start && request.arrived <= end);
    Span::of(within.map(|request| request.units).sum(), end - start, limit)
}

/// The same between arrivals alone: with requests that travel for different times it may show more than was admitted.
pub fn worst_span_of_arrivals(admitted: &[Admitted], limit: u32) -> Span {
    let limit = i64::from(limit);
    let mut by_arrival = admitted.to_vec();
    by_arrival.sort_unstable_by_key(|request| request.arrived);
    let (mut units, mut least, mut worst) = (0, (i64::MAX, 0, 0), (i64::MIN, Span { units: 0, allowed: limit }));
    for request in by_arrival {
        least = least.min((units * MINUTE - limit * request.arrived, units, request.arrived));
        units += request.units;
        let (before, units_before, start) = least;
        let score = units * MINUTE - limit * request.arrived - before;
        if score > worst.0 {
            worst = (score, Span::of(units - units_before, request.arrived - start, limit));
        }
    }
    worst.1
}

/// How many units more than the `asked` ones there was room for, at the refusal that left most of it. A bucket has no room
/// when, since some time, more than `limit - asked` units were admitted beyond those that came back since: of a request that
/// may have been under way what it held, of one that was settled what it used.
pub fn room_when_refused(admitted: &[Admitted], refused: &[Refused], limit: u32, asked: i64) -> u64 {
    let limit = i64::from(limit);
    let unit = MINUTE / limit + i64::from(MINUTE % limit != 0);
    let mut starts: Vec<i64> = admitted.iter().map(|request| request.arrived).collect();
    starts.sort_unstable();
    let (mut by_sending, mut refused) = (admitted.to_vec(), refused.to_vec());
    by_sending.sort_unstable_by_key(|request| request.sent);
    refused.sort_unstable_by_key(|request| request.answered);
    let mut by_answer = admitted.to_vec();
    by_answer.sort_unstable_by_key(|request| request.answered);
    // When the earliest of a refusal and all later ones was sent: what was answered before was settled for each of them.
    let mut earliest: Vec<i64> = refused.iter().map(|refusal| refusal.sent).collect();
    for at in (1..earliest.len()).rev() {
        earliest[at - 1] = earliest[at - 1].min(earliest[at]);
    }
    // At each start: how full the requests that may have been admitted since then can have made the bucket.
    let mut tree = Tree::new(starts.clone());
    let (mut waiting, mut open) = (by_sending.iter().peekable(), by_answer.iter().peekable());
    let (mut sent, mut room) = (0, 0);
    for (refusal, earliest) in refused.iter().zip(earliest) {
        while let Some(request) = waiting.next_if(|request| request.sent <= refusal.answered) {
            let until = starts.partition_point(|start| *start <= request.arrived);
            tree.add(0..until, request.held * unit);
            sent += 1;
        }
        while let Some(request) = open.next_if(|request| request.answered < earliest) {
            let until = starts.partition_point(|start| *start <= request.arrived);
            tree.add(0..until, (request.units - request.held) * unit);
        }
        let until = starts.partition_point(|start| *start <= refusal.answered);
        let full = if until == 0 { 0 } else { tree.max(0..until).0 - refusal.sent };
        // Those that were sent and have not arrived may have been admitted a nanosecond before.
        let on_their_way = sent - starts.partition_point(|start| *start < refusal.answered);
        let full = full.max(i64::try_from(on_their_way).unwrap() * asked * unit - 1);
        room = room.max((limit - asked) * unit - full);
    }
    u64::try_from(room.max(0)).unwrap().div_ceil(unit.unsigned_abs())
}

/// Numbers in a row, of which ranges are raised and the largest of a range is asked for, both in logarithmic time.
struct Tree {
    count: usize,
    /// The largest number under each node, and where it is, without what was added to the nodes above it.
    largest: Vec<(i64, usize)>,
    added: Vec<i64>,
}

impl Tree {
    fn new(numbers: Vec<i64>) -> Self {
        let count = numbers.len().next_power_of_two();
        let mut largest = vec![(i64::MIN / 2, 0); count];
        largest.extend(numbers.into_iter().enumerate().map(|(at, number)| (number, at)));
        largest.resize(2 * count, (i64::MIN / 2, 0));
        for node in (1..count).rev() {
            largest[node] = largest[2 * node].max(largest[2 * node + 1]);
        }
        Self { count, largest, added: vec![0; 2 * count] }
    }

    fn add(&mut self, range: std::ops::Range<usize>, by: i64) {
        self.add_under(1, 0..self.count, &range, by);
    }

    fn add_under(&mut self, node: usize, covers: std::ops::Range<usize>, range: &std::ops::Range<usize>, by: i64) {
        if range.end <= covers.start || covers.end <= range.start {
            return;
        }
        if range.start <= covers.start && covers.end <= range.end {
            self.added[node] += by;
            self.largest[node].0 += by;
            return;
        }
        let middle = covers.start.midpoint(covers.end);
        self.add_under(2 * node, covers.start..middle, range, by);
        self.add_under(2 * node + 1, middle..covers.end, range, by);
        let (number, at) = self.largest[2 * node].max(self.largest[2 * node + 1]);
        self.largest[node] = (number + self.added[node], at);
    }

    /// The largest of the range, which is not empty, and where it is.
    fn max(&self, range: std::ops::Range<usize>) -> (i64, usize) {
        self.max_under(1, 0..self.count, &range)
    }

    fn max_under(&self, node: usize, covers: std::ops::Range<usize>, range: &std::ops::Range<usize>) -> (i64, usize) {
        if range.end <= covers.start || covers.end <= range.start {
            return (i64::MIN / 2, 0);
        }
        if range.start <= covers.start && covers.end <= range.end {
            return self.largest[node];
        }
        let middle = covers.start.midpoint(covers.end);
        let left = self.max_under(2 * node, covers.start..middle, range);
        let (number, at) = left.max(self.max_under(2 * node + 1, middle..covers.end, range));
        (number + self.added[node], at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Arrivals in seconds, sent a tenth of a second before.
    fn requests(arrivals: &[i64]) -> Vec<Admitted> {
        arrivals.iter().map(|at| request(at * SECOND - SECOND / 10, at * SECOND, 1)).collect()
    }

    /// Settled as it arrives.
    fn request(sent: i64, arrived: i64, units: i64) -> Admitted {
        Admitted { sent, arrived, answered: arrived, units, held: units }
    }

    #[test]
    fn a_request_too_many_is_seen_in_whatever_span_it_is() {
        assert_eq!(worst_span(&requests(&[0, 0, 0, 20, 40, 60]), 3).excess(), 0);
        assert_eq!(worst_span(&requests(&[0, 0, 0, 19, 40]), 3), Span { units: 4, allowed: 3 });
        assert_eq!(worst_span(&requests(&[0, 100, 100, 100, 119, 200]), 3), Span { units: 4, allowed: 3 });
        assert_eq!(worst_span(&requests(&[0, 0, 0, 0, 0, 0]), 3), Span { units: 6, allowed: 3 });
        assert_eq!(worst_span_of_arrivals(&requests(&[0, 100, 100, 100, 119, 200]), 3).excess(), 1);
        assert_eq!(worst_span_of_arrivals(&requests(&[0, 0, 0, 20, 40]), 3).excess(), 0);
    }

    #[test]
    fn a_request_that_travelled_for_long_is_no_excess() {
        let mut late = requests(&[1, 1, 1, 20]);
        late[0].sent = -SECOND;
        late[1].sent = -SECOND;
        late[2].sent = -SECOND;
        assert_eq!((worst_span(&late, 3).excess(), worst_span_of_arrivals(&late, 3).excess()), (0, 1));
    }

    #[test]
    fn the_span_is_the_one_that_a_search_of_all_pairs_finds() {
        let mut seed = 7_i64;
        let mut dice = |sides: i64| {
            seed = (seed * 48_271) % 2_147_483_647;
            seed % sides
        };
        for _ in 0..50 {
            let random = |_| {
                let sent = dice(40) * SECOND;
                request(sent, sent + dice(3) * SECOND, 1 + dice(4))
            };
            let admitted: Vec<_> = (0..40).map(random).collect();
            let score = |span: &Span| span.units - span.allowed;
            let pairs = admitted.iter().flat_map(|from| admitted.iter().map(move |to| (from.sent, to.arrived)));
            let spans = pairs.filter(|(start, end)| start <= end).map(|(start, end)| {
                let within = admitted.iter().filter(|it| it.sent >= start && it.arrived <= end);
                Span::of(within.map(|it| it.units).sum(), end - start, 60)
            });
            assert_eq!(score(&worst_span(&admitted, 60)), spans.map(|span| score(&span)).max().unwrap());
        }
    }

    #[test]
    fn a_refusal_is_right_only_while_the_bucket_can_have_been_full() {
        let refused = |at: i64| [Refused { sent: at * SECOND, answered: at * SECOND + SECOND / 10 }];
        let admitted = requests(&[0, 0, 0]);
        assert_eq!(room_when_refused(&admitted, &refused(19), 3, 1), 0);
        assert_eq!(room_when_refused(&admitted, &refused(21), 3, 1), 1);
        assert_eq!(room_when_refused(&admitted[..2], &refused(1), 3, 1), 1);
        assert_eq!(room_when_refused(&admitted, &refused(45), 3, 1), 2);
        // Sent before the refusal, and arrived after it: they can have filled the bucket.
        let mut slow = requests(&[4, 4, 5]);
        for request in &mut slow {
            request.sent = 0;
        }
        assert_eq!(room_when_refused(&slow, &refused(1), 3, 1), 0);
        assert_eq!(room_when_refused(&slow[..2], &refused(1), 3, 1), 1);
        slow[2].sent = 2 * SECOND;
        assert_eq!(room_when_refused(&slow, &refused(1), 3, 1), 1);
    }

    #[test]
    fn what_a_request_held_counts_until_it_may_be_settled_and_then_what_it_used() {
        let refused = |at: i64| Refused { sent: at * SECOND, answered: at * SECOND + SECOND / 10 };
        // Ten of a minute's sixty are held for a second, then four are used.
        let admitted = |count| vec![Admitted { answered: SECOND, held: 10, ..request(0, 0, 4) }; count];
        let room = |count, at| room_when_refused(&admitted(count), &[refused(at)], 60, 10);
        assert_eq!((room(6, 1), room(5, 1)), (0, 1), "of six 60 are held a second ago, of five 50");
        assert_eq!((room(5, 2), room(13, 2), room(14, 2)), (32, 0, 0), "20, 52 and 56 are used two seconds ago");
        // A refusal that was told late may have been decided while they were under way.
        let late = Refused { sent: 0, answered: 2 * SECOND };
        assert_eq!(room_when_refused(&admitted(6), &[refused(1), late], 60, 10), 0);
    }
}
