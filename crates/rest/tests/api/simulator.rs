//! `/v1/simulator`: a client drives the clock, breaks things and begins anew; a daemon without a simulator says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::Edge;
use rest::server::{Parts, Peer, Simulation};
use serde_json::{Value, json};

/// An edge with its simulation, and how often that was begun anew.
fn edge() -> (Edge, Arc<AtomicUsize>) {
    let mut edge = Edge::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    let simulation = Simulation {
        engine: edge.engine.clone(),
        time: Arc::new(|| "2025-01-01T00:00:00Z".to_owned()),
        restart: Arc::new(move |_, scenario| {
            counted.fetch_add(1 + scenario.map_or(0, |s| s.machines.len()), Ordering::Relaxed);
            Ok(())
        }),
    };
    edge.router = rest::server::router(Parts { simulation: Some(simulation), ..edge.parts.clone() })
        .layer(axum::Extension(Peer { name: "tester".to_owned() }));
    (edge, begun)
}

#[test]
fn a_daemon_without_a_simulator_says_so() {
    let edge = Edge::new();
    for (method, path) in [
        ("GET", "/v1/simulator"),
        ("GET", "/v1/simulator/clock"),
        ("DELETE", "/v1/simulator/faults"),
        ("DELETE", "/v1/simulator/faults/1"),
        ("GET", "/v1/simulator/events"),
    ] {
        assert_eq!(edge.refused(404, method, path, Value::Null), "not-found");
    }
    let (_, problem) = edge.ask("POST", "/v1/simulator/clock/advance", json!({"ms": 1}));
    assert!(problem["error"]["hint"].as_str().unwrap().contains("--engine sim"), "{problem}");
}

#[test]
fn the_clock_is_driven_and_what_was_due_is_seen_at_once() {
    let (edge, _) = edge();
    edge.ok("POST", "/v1/machines", json!({"name": "web"}));
    edge.ok("PATCH", "/v1/simulator/guests/web", json!({"boot_ms": 2000}));
    edge.ok("POST", "/v1/machines/web/start", Value::Null);
    let plan = |event: Value| edge.ok("POST", "/v1/simulator/events", event);
    plan(
        json!({"machine": "web", "event": "disk-error", "after_ms": 4000, "text": "No space left on device"}),
    );
    let waiting = plan(json!({"machine": "web", "event": "kill", "after_ms": 9000, "text": "lightning"}));
    assert_eq!(waiting["events"][1]["at_ms"], 9000);
    let clock = edge.ok("POST", "/v1/simulator/clock/advance", json!({"ms": 3500}));
    assert_eq!(clock, json!({"mode": "manual", "elapsed_ms": 3500, "time": "2025-01-01T00:00:00Z"}));
    let guest = &edge.ok("GET", "/v1/simulator", Value::Null)["guests"][0];
    assert_eq!(
        (&guest["ready"], &guest["counter"], &guest["uptime_ms"]),
        (&json!(true), &json!(1), &json!(3500))
    );

    edge.ok("PUT", "/v1/simulator/clock", json!({"elapsed_ms": 4000}));
    let web = edge.ok("GET", "/v1/machines/web", Value::Null);
    assert_eq!(web["state"], "paused");
    assert!(web["note"].as_str().unwrap().contains("No space left"), "{web}");
    edge.ok("POST", "/v1/machines/web/resume", Value::Null);
    edge.ok("POST", "/v1/simulator/clock/advance", json!({"ms": 5000}));
    let web = edge.ok("GET", "/v1/machines/web", Value::Null);
    assert_eq!((&web["state"], &web["note"]), (&json!("off"), &json!("lightning")));

    for (body, status) in [
        (json!({"elapsed_ms": 1}), 422),
        (json!({"mode": "sideways"}), 422),
        (json!({"speed": 2}), 422),
        (json!({"elapsed_ms": u64::MAX}), 422),
    ] {
        assert_eq!(edge.refused(status, "PUT", "/v1/simulator/clock", body), "invalid-argument");
    }
    assert_eq!(edge.ok("PUT", "/v1/simulator/clock", json!({"mode": "real"}))["mode"], "real");
}

#[test]
fn guests_do_at_once_what_they_are_told() {
    let (edge, _) = edge();
    edge.ok("POST", "/v1/machines", json!({"name": "web"}));
    let event =
        |event: &str| edge.ask("POST", "/v1/simulator/events", json!({"machine": "web", "event": event}));
    let (status, problem) = event("panic");
    assert_eq!((status.as_u16(), &problem["error"]["id"]), (409, &json!("invalid-state")));
    for name in ["kill", "panic", "power-off"] {
        edge.ok("POST", "/v1/machines/web/start", Value::Null);
        assert_eq!(event("reboot").0, 200);
        assert_eq!(event(name).0, 200);
        assert_eq!(edge.ok("GET", "/v1/machines/web", Value::Null)["state"], "off", "{name}");
    }
    assert_eq!(event("melt").0, 422);
    let wrong = json!({"machine": "web", "event": "panic", "text": "x"});
    assert_eq!(edge.refused(422, "POST", "/v1/simulator/events", wrong), "invalid-argument");
    let nobody = json!({"machine": "nobody", "event": "panic"});
    assert_eq!(edge.refused(404, "POST", "/v1/simulator/events", nobody.clone()), "not-found");
    // A machine to come is no mistake.
    let mut later = nobody;
    later["after_ms"] = json!(1);
    edge.ok("POST", "/v1/simulator/events", later);
    assert_eq!(edge.ok("DELETE", "/v1/simulator/events", Value::Null)["cleared"], 1);
}

#[test]
fn faults_are_added_met_listed_and_cleared() {
    let (edge, _) = edge();
    edge.ok("POST", "/v1/machines", json!({"name": "web"}));
    let fail = json!({"kind": "no-resources", "message": "out of memory"});
    let fault = edge.ok(
        "POST",
        "/v1/simulator/faults",
        json!({"machine": "web", "operation": "start", "nth": 2, "fail": fail}),
    );
    assert_eq!((&fault["id"], &fault["spent"]), (&json!(1), &json!(false)));
    edge.ok("POST", "/v1/machines/web/start", Value::Null);
    edge.ok("POST", "/v1/machines/web/stop", Value::Null);
    let (status, problem) = edge.ask("POST", "/v1/machines/web/start", Value::Null);
    assert_eq!((status.as_u16(), &problem["error"]["id"]), (503, &json!("host-lacks")));
    assert!(problem["error"]["message"].as_str().unwrap().contains("out of memory"), "{problem}");
    edge.ok("POST", "/v1/machines/web/start", Value::Null);
    let list = edge.ok("GET", "/v1/simulator/faults", Value::Null);
    let met = &list["faults"][0];
    assert_eq!((&met["met"], &met["hits"], &met["spent"]), (&json!(3), &json!(1), &json!(true)));
    for wrong in [
        json!({"operation": "start"}),
        json!({"operation": "start", "stall": true, "delay_ms": 1}),
        json!({"operation": "start", "job": "export", "stall": true}),
        json!({"operation": "start", "percent": 4, "stall": true}),
        json!({"operation": "explode", "stall": true}),
        json!({"operation": "start", "fail": {"kind": "locked"}}),
        json!({"job": "export", "percent": 101, "stall": true}),
        json!({"job": "export", "stall": true, "times": 1, "forever": true}),
        json!({"stall": true}),
    ] {
        assert_eq!(
            edge.refused(422, "POST", "/v1/simulator/faults", wrong.clone()),
            "invalid-argument",
            "{wrong}"
        );
    }
    assert_eq!(edge.ok("DELETE", "/v1/simulator/faults/1", Value::Null)["cleared"], 1);
    assert_eq!(edge.refused(404, "DELETE", "/v1/simulator/faults/1", Value::Null), "not-found");
    edge.ok("POST", "/v1/simulator/faults", json!({"job": "any", "forever": true, "stall": true}));
    assert_eq!(edge.ok("DELETE", "/v1/simulator/faults", Value::Null)["cleared"], 1);
}

#[test]
fn a_reset_takes_a_scenario_or_none() {
    let (edge, begun) = edge();
    edge.ok("POST", "/v1/simulator/reset", json!({}));
    edge.ok("POST", "/v1/simulator/reset", json!({"scenario": {"machines": [{"name": "a"}, {"name": "b"}]}}));
    assert_eq!(begun.load(Ordering::Relaxed), 4);
    let typo = json!({"scenario": {"machines": [{"name": "a", "colour": "red"}]}});
    assert_eq!(edge.refused(422, "POST", "/v1/simulator/reset", typo), "invalid-argument");
}
