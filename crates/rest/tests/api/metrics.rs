//! `/metrics` read as strictly as the format is written, and what it says; `/healthz`.

use std::collections::{BTreeMap, BTreeSet};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::support::Edge;

/// Labels, sorted by name, and a value.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

/// Reads Prometheus' text format 0.0.4 and refuses whatever a strict reader may refuse: a family without help or type,
/// twice, or with foreign samples in it; a sample twice; a broken name, label or escape; a histogram that does not add up.
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line ends too");
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    let mut samples = Samples::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
            assert!(helped.insert(name.to_owned()), "twice: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
            assert!(helped.contains(name), "help comes first: {line}");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            current = name.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            let suffixes: &[&str] = match families[&current].as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.iter().any(|s| format!("{current}{s}") == name), "not of {current}: {line}");
            assert!(samples.insert((name, labels), value).is_none(), "twice: {line}");
        }
    }
    for name in families.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
        histogram(name, &samples);
    }
    samples
}

fn is_name(text: &str) -> bool {
    text.starts_with("slipway_") && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(label.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => match characters.next().unwrap().1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        c => panic!("no escape \\{c}: {line}"),
                    },
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value: f64 = rest.strip_prefix(' ').unwrap().parse().unwrap();
    labels.sort();
    assert!(labels.windows(2).all(|w| w[0].0 != w[1].0), "{line}");
    (name.to_owned(), labels, value)
}

/// Classes grow, the last one is everything, and everything is the count.
fn histogram(name: &str, samples: &Samples) {
    let (bucket, count) = (format!("{name}_bucket"), format!("{name}_count"));
    for ((_, labels), total) in samples.iter().filter(|((n, _), _)| *n == count) {
        let mut classes: Vec<(f64, f64)> = samples
            .iter()
            .filter(|((n, l), _)| *n == bucket && labels.iter().all(|label| l.contains(label)))
            .map(|((_, l), value)| {
                let bound = &l.iter().find(|(label, _)| label == "le").unwrap().1;
                (if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() }, *value)
            })
            .collect();
        classes.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(classes.windows(2).all(|w| w[0].1 <= w[1].1), "{classes:?}");
        assert_eq!(*classes.last().unwrap(), (f64::INFINITY, *total));
        assert!(samples.contains_key(&(format!("{name}_sum"), labels.clone())));
    }
}

impl Edge {
    fn text(&self, path: &str) -> (u16, String, String) {
        let response = self.raw(Request::get(path).body(Full::new(Bytes::new())).unwrap());
        let status = response.status().as_u16();
        let media = response.headers()["content-type"].to_str().unwrap().to_owned();
        let bytes = self.tokio.block_on(response.into_body().collect()).unwrap().to_bytes();
        (status, media, String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn metrics(&self) -> Samples {
        let (status, media, text) = self.text("/metrics");
        assert_eq!((status, media.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        parse(&text)
    }
}

fn key(name: &str, labels: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
    let mut labels: Vec<_> = labels.iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect();
    labels.sort();
    (format!("slipway_{name}"), labels)
}

#[test]
fn what_happens_is_counted() {
    let edge = Edge::new();
    let before = edge.metrics();
    let ended = |kind, end| key("jobs_ended_total", &[("kind", kind), ("end", end)]);
    for kind in ["import", "export"] {
        for end in ["completed", "completed-with-warnings", "failed", "cancelled"] {
            assert_eq!(before[&ended(kind, end)], 0.0, "there before anything ended");
        }
        assert_eq!(before[&key("jobs_unfinished", &[("kind", kind), ("state", "parked")])], 0.0);
        assert_eq!(before[&key("job_read_bytes_total", &[("kind", kind)])], 0.0);
    }
    assert_eq!(before[&key("build_info", &[("version", env!("CARGO_PKG_VERSION"))])], 1.0);
    assert_eq!(before[&key("machines", &[("state", "off")])], 0.0);

    // A name with everything that has to be escaped.
    let name = "we\"b\\n äöü";
    std::fs::write(edge.path("disk.raw"), vec![7; 1 << 20]).unwrap();
    let body =
        json!({"name": name, "generation": 1, "disks": [{"path": edge.path("disk.raw"), "format": "raw"}]});
    let machine = edge.ok("POST", "/v1/machines", body)["id"].as_str().unwrap().to_owned();
    let last = key("machine_last_export_timestamp_seconds", &[("machine", &machine), ("name", name)]);
    assert_eq!(edge.metrics()[&last], 0.0, "never exported");

    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64().floor();
    let export = |target: &str, more: Value| {
        let mut body = json!({"directory": edge.path(target)});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        edge.finish(&edge.ok("POST", &format!("/v1/machines/{machine}/export"), body))
    };
    assert_eq!(export("half", json!({"configuration_only": true}))["state"], "completed");
    assert_eq!(edge.metrics()[&last], 0.0, "a configuration is no backup");
    assert_eq!(export("out", json!({}))["state"], "completed");
    let import = json!({"path": edge.path("out"), "options": {"new_id": true}});
    let planned = edge.ok("POST", "/v1/planned", import)["id"].as_str().unwrap().to_owned();
    edge.finish(&edge.ok("POST", &format!("/v1/planned/{planned}/realize"), Value::Null));
    edge.ok("POST", &format!("/v1/machines/{machine}/start"), Value::Null);

    let after = edge.metrics();
    assert!((now..now + 600.0).contains(&after[&last]), "{} {now}", after[&last]);
    assert_eq!(after[&ended("export", "completed")], 2.0);
    assert_eq!(after[&ended("import", "completed")], 1.0);
    assert_eq!(after[&key("job_duration_seconds_count", &[("kind", "export"), ("end", "completed")])], 2.0);
    assert_eq!(after[&key("machines", &[("state", "off")])], 1.0);
    assert_eq!(after[&key("machines", &[("state", "running")])], 1.0);
    for kind in ["import", "export"] {
        assert_eq!(after[&key("job_read_bytes_total", &[("kind", kind)])], f64::from(1 << 20), "{kind}");
        assert!(after[&key("job_written_bytes_total", &[("kind", kind)])] >= f64::from(1 << 20), "{kind}");
    }
    let transactions = key("store_transaction_duration_seconds_count", &[]);
    assert!(after[&transactions] > before[&transactions]);

    edge.ok("POST", &format!("/v1/machines/{machine}/stop"), Value::Null);
    edge.ok("DELETE", &format!("/v1/machines/{machine}"), Value::Null);
    assert!(!edge.metrics().contains_key(&last), "what is gone is not watched");
}

#[test]
fn health_is_a_word_or_a_reason() {
    let edge = Edge::new();
    assert_eq!(edge.text("/healthz").2, "ok\n");
}
