//! Days of a time zone, out of a ledger that keeps minutes, hours and days of UTC.

use super::*;

/// 2026-03-27 00:00 UTC and 2026-10-23 00:00 UTC: two days before Berlin's clocks change.
const MARCH_S: u64 = 1_774_569_600;
const OCTOBER_S: u64 = 1_792_713_600;

const QUARTERS: i64 = 5 * 24 * 4;

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// One token in every quarter of an hour of five days, each for another price.
async fn world(first_s: u64) -> World {
    let lines: Vec<_> = (0..QUARTERS).map(|index| [(InputText, 1, 1_000_003 + index)]).collect();
    let entry = |(at_s, line)| Settled { at_s, lines: line, ..Settled::default() };
    let times = (first_s..).step_by(900);
    World::new(&times.zip(&lines).map(|(at_s, line)| entry((at_s, line.as_slice()))).collect::<Vec<_>>()).await
}

/// Start, hours, and requests of each bucket.
fn days(body: &str) -> Vec<(u64, u64, u64)> {
    let day = |bucket: &Value| {
        let (start_s, end_s) = (bucket["start_time"].as_u64().unwrap(), bucket["end_time"].as_u64().unwrap());
        let requests = bucket["results"][0]["num_model_requests"].as_u64().unwrap_or_default();
        (start_s, (end_s - start_s) / HOUR_S, requests)
    };
    buckets(body).iter().map(day).collect()
}

#[tokio::test]
async fn a_day_has_the_requests_between_its_own_midnights() {
    let (march, october) = (world(MARCH_S).await, world(OCTOBER_S).await);
    for (first_s, zone, hours, first_day_s) in [
        (MARCH_S, "Europe/Berlin", [24, 23, 24], MARCH_S + DAY_S - HOUR_S),
        (OCTOBER_S, "Europe/Berlin", [24, 25, 24], OCTOBER_S + DAY_S - 2 * HOUR_S),
        // From 8 March to 1 November, New York is four hours behind.
        (MARCH_S, "America/New_York", [24, 24, 24], MARCH_S + DAY_S + 4 * HOUR_S),
        (MARCH_S, "Asia/Kolkata", [24, 24, 24], MARCH_S + DAY_S - 5 * HOUR_S - 1_800),
        (MARCH_S, "Asia/Kathmandu", [24, 24, 24], MARCH_S + DAY_S - 5 * HOUR_S - 2_700),
        (MARCH_S, "Pacific/Apia", [24, 24, 24], MARCH_S + DAY_S + 11 * HOUR_S),
    ] {
        let world = if first_s == MARCH_S { &march } else { &october };
        let length_s = hours.iter().sum::<u64>() * HOUR_S;
        let query = format!("start_time={first_day_s}&end_time={}&timezone={zone}", first_day_s + length_s);
        let now_s = first_s + 5 * DAY_S;
        let found = days(&world.usage_at(now_s, &query).await);
        let mut start_s = first_day_s;
        for (day, hours) in found.iter().zip(hours) {
            assert_eq!(*day, (start_s, hours, 4 * hours), "{zone}");
            start_s += hours * HOUR_S;
        }
        assert_eq!(found.len(), 3, "{zone}");
    }
}

#[tokio::test]
async fn the_spring_day_of_new_york_has_23_hours_in_the_costs_too() {
    // 2026-03-07 00:00 UTC.
    let first_s = 1_772_841_600;
    let world = world(first_s).await;
    // Noon of the 7th to noon of the 9th: costs come in whole days all the same.
    let (start_s, end_s) = (first_s + 17 * HOUR_S, first_s + 17 * HOUR_S + 2 * DAY_S);
    let query = format!("start_time={start_s}&end_time={end_s}&timezone=America/New_York&group_by=line_item");
    let body = world.page(Kind::Costs, first_s + 5 * DAY_S, &query).await;
    let first_day_s = first_s + 5 * HOUR_S;
    let found: Vec<_> = days(&body).into_iter().map(|(start_s, hours, _)| (start_s, hours)).collect();
    assert_eq!(found, [(first_day_s, 24), (first_day_s + DAY_S, 23), (first_day_s + DAY_S + 23 * HOUR_S, 24)]);
    let quantities: Vec<_> = buckets(&body).iter().map(|it| it["results"][0]["quantity"].as_u64().unwrap()).collect();
    assert_eq!(quantities, [96, 92, 96]);
}

/// Dollars as they are printed, in pico-dollars.
fn pico(body: &str) -> i128 {
    let amounts = body.split("\"value\":").skip(1).map(|rest| rest.split(',').next().unwrap());
    let amount = |text: &str| -> i128 {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{fraction:0<12}").parse().unwrap()
    };
    amounts.map(amount).sum()
}

#[tokio::test]
async fn days_of_every_zone_sum_up_to_the_same_minutes_and_the_same_money() {
    let world = world(OCTOBER_S).await;
    let now_s = OCTOBER_S + 10 * DAY_S;
    let (mut minutes, mut start_s) = (0, OCTOBER_S);
    while start_s < OCTOBER_S + 5 * DAY_S {
        let query = format!("start_time={start_s}&bucket_width=1m&limit=1440");
        minutes += days(&world.usage_at(now_s, &query).await).iter().map(|day| day.2).sum::<u64>();
        start_s += DAY_S;
    }
    let money: i128 = (0..QUARTERS).map(|index| 1_000_003 + i128::from(index)).sum();
    for zone in ["UTC", "Europe/Berlin", "Europe/London", "America/New_York", "Asia/Kolkata", "Pacific/Apia"] {
        let span = format!("start_time={}&end_time={now_s}&limit=31&timezone={zone}", OCTOBER_S - DAY_S);
        let sum: u64 = days(&world.usage_at(now_s, &span).await).iter().map(|day| day.2).sum();
        assert_eq!((sum, minutes), (QUARTERS.unsigned_abs(), QUARTERS.unsigned_abs()), "{zone}");
        assert_eq!(pico(&world.page(Kind::Costs, now_s, &span).await), money, "{zone}");
    }
}

#[tokio::test]
async fn pages_of_shifted_days_join_and_belong_to_their_zone() {
    let world = world(OCTOBER_S).await;
    let (now_s, start) = (OCTOBER_S + 9 * DAY_S, format!("start_time={}", OCTOBER_S + 100));
    let query = format!("{start}&timezone=Asia/Kolkata");
    let whole = buckets(&world.usage_at(now_s, &format!("{query}&limit=31")).await);
    let (mut joined, mut page) = (Vec::new(), String::new());
    loop {
        let body = world.usage_at(now_s, &format!("{query}&limit=3{page}")).await;
        joined.extend(buckets(&body));
        let Some(next) = parsed(&body)["next_page"].as_str().map(str::to_owned) else { break };
        page = format!("&page={next}");
    }
    assert_eq!((joined.len(), &joined), (10, &whole));

    let first = parsed(&world.usage_at(now_s, &format!("{query}&limit=3")).await);
    let cursor = first["next_page"].as_str().unwrap();
    for other in ["", "&timezone=UTC", "&timezone=Asia/Colombo", "&timezone=Asia/Nowhere"] {
        let query = format!("{start}{other}&limit=3&page={cursor}");
        let now = UnixNanos::from_seconds(now_s);
        let error = super::page(Kind::Completions, &world.store, &world.catalog, &query, now).await.unwrap_err();
        let param = if other.ends_with("Nowhere") { "timezone" } else { "page" };
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{other}");
    }
}
