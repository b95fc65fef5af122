//! With `durability = "power"`: what the disk has confirmed, in the order of the system calls.

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use crate::{
    ledger::Ledger,
    process::{LookAlike, Setup, runs},
    survival::text,
};

#[tokio::test]
async fn requests_are_on_the_disk_before_the_upstream_and_settlements_before_the_last_byte() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = LookAlike::start(dir.path(), &[]);
    let trace = dir.path().join("trace");
    // -D: the gateway stays the child of this test, and strace ends with it.
    let calls = "trace=fdatasync,write,writev,sendto,sendmsg";
    let wrapper = ["strace", "-D", "-f", "-q", "-yy", "-s", "4096", "-e", calls, "-o", trace.to_str().unwrap()];
    let traced = runs("strace", &["-D", "-f", "-o", "/dev/null", "true"]);
    let setup = Setup::new(dir.path(), &upstream).with("DURABILITY", "power");
    let mut gateway = if traced { setup.clone().started_by(&wrapper).start() } else { setup.start() };
    let key = gateway.new_key(&json!({})).await;
    let mut streamed = text();
    streamed["stream"] = json!(true);
    let mut ids = Vec::new();
    for body in [text(), streamed] {
        let answer = gateway.chat(&key, &body).await;
        assert!(answer.is_finished(), "{}", answer.text());
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    let process_id = gateway.process_id();
    gateway.stop();
    let rows = Ledger::open(&setup.ledger()).await.rows().await;
    assert!(
        rows.len() == 2 && rows.iter().all(|row| row.outcome == "completed" && row.basis == "reported"),
        "{rows:?}"
    );
    if traced {
        let trace = Trace::read(&trace, process_id).await;
        for id in &ids {
            trace.assert_order_of(id);
        }
    } else {
        println!("skipped: without strace nobody sees in which order things are written");
    }
}

/// One system call a line, in the order in which they began; those that other threads interrupted end on a later line.
struct Trace(Vec<String>);

impl Trace {
    /// The whole trace: strace ends a moment after the process that it traces.
    async fn read(path: &Path, process_id: u32) -> Self {
        // Short process ids are filled up with spaces.
        let of_process = |line: &str| line.split(' ').next() == Some(process_id.to_string().as_str());
        for _ in 0..500 {
            let text = fs::read_to_string(path).unwrap();
            if text.lines().any(|line| line.contains("+++ exited") && of_process(line)) {
                return Self(text.lines().map(str::to_owned).collect());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the trace has no end");
    }

    fn find(&self, from: usize, what: &str, matches: impl Fn(&str) -> bool) -> usize {
        let found = self.0.iter().enumerate().skip(from).find(|(_, line)| matches(line));
        found.unwrap_or_else(|| panic!("not in the trace after line {from}: {what}")).0
    }

    /// The line on which a sync that began after `from` has succeeded.
    fn synced_after(&self, from: usize) -> usize {
        let begun = self.find(from + 1, "fdatasync", |line| line.contains("fdatasync(") && line.contains(".jsonl"));
        let line = &self.0[begun];
        if !line.contains("<unfinished") {
            assert!(line.ends_with("= 0"), "{line}");
            return begun;
        }
        let thread = line.split(' ').next().unwrap();
        let resumed = |line: &str| line.starts_with(thread) && line.contains("fdatasync resumed");
        let ended = self.find(begun, "the end of fdatasync", resumed);
        assert!(self.0[ended].ends_with("= 0"), "{}", self.0[ended]);
        ended
    }

    fn assert_order_of(&self, id: &str) {
        let record =
            |kind: &'static str| move |line: &str| line.contains(".jsonl>") && line.contains(kind) && line.contains(id);
        let admitted = self.find(0, "the admission", record("admitted"));
        let forwarded = self.find(0, "the call of the upstream", |line| {
            line.contains("POST /v1/chat/completions") && line.contains(id) && line.contains("TCP")
        });
        let admission_safe = self.synced_after(admitted);
        assert!(admission_safe < forwarded, "{id}: called at {forwarded}, on the disk at {admission_safe}");

        let settled = self.find(0, "the settlement", record("settled"));
        let settlement_safe = self.synced_after(settled);
        let head = self.find(0, "the head of the answer", |line| line.contains("HTTP/1.1 200") && line.contains(id));
        // A stream's head goes out before its end is known; its last event must not.
        let streams = self.0[head].contains("text/event-stream");
        let last = if streams { self.find(head, "the last event", |line| line.contains("[DONE]")) } else { head };
        assert!(settlement_safe < last, "{id}: ended at {last}, on the disk at {settlement_safe}");
    }
}
