//! `/v1/machines`: what is asked, what is answered, how it is refused.

use crate::support::Edge;
use serde_json::{Value, json};

#[test]
fn a_machine_is_made_found_run_changed_and_deleted() {
    let edge = Edge::new();
    let made = edge.ok(
        "POST",
        "/v1/machines",
        json!({"name": "web", "generation": 1, "memory_mib": 512, "disks": [{"size": 1 << 20}], "adapters": ["nat"],
            "dvd": ""}),
    );
    assert_eq!(made["state"], "off");
    assert_eq!(made["disks"][0]["virtual_size"], 1 << 20);
    assert_eq!(made["adapters"][0]["switch"], "nat");
    assert_eq!(made["drives"][0]["image"], Value::Null);
    let id = made["id"].as_str().unwrap();

    for word in ["web", "WE", id, &id[..8]] {
        assert_eq!(edge.ok("GET", &format!("/v1/machines/{word}"), Value::Null)["id"], id, "{word}");
    }
    assert_eq!(edge.ok("GET", "/v1/machines", Value::Null)["machines"][0]["name"], "web");

    for (verb, state) in [
        ("start", "running"),
        ("pause", "paused"),
        ("resume", "running"),
        ("reset", "running"),
        ("stop", "off"),
    ] {
        assert_eq!(
            edge.ok("POST", &format!("/v1/machines/web/{verb}"), Value::Null)["state"],
            state,
            "{verb}"
        );
    }
    edge.ok("POST", "/v1/machines/web/start", Value::Null);
    assert_eq!(edge.refused(409, "PATCH", "/v1/machines/web", json!({"memory_mib": 1024})), "invalid-state");
    assert_eq!(edge.refused(409, "DELETE", "/v1/machines/web", Value::Null), "invalid-state");
    assert_eq!(edge.refused(409, "POST", "/v1/machines/web/start", Value::Null), "invalid-state");
    assert_eq!(edge.ok("POST", "/v1/machines/web/shutdown", json!({"timeout_seconds": 30}))["state"], "off");

    let changed = edge.ok(
        "PATCH",
        "/v1/machines/web",
        json!({"memory_mib": 1024, "name": "www", "hardware": "virtio"}),
    );
    assert_eq!((&changed["memory_mib"], &changed["name"]), (&json!(1024), &json!("www")));
    assert_eq!(changed["hardware"], "virtio");
    assert_eq!(edge.ask("DELETE", "/v1/machines/www", Value::Null).0, 204);
    assert_eq!(edge.refused(404, "GET", "/v1/machines/www", Value::Null), "not-found");
}

#[test]
fn refusals_have_a_status_an_id_and_where_it_helps_a_hint() {
    let edge = Edge::new();
    for name in ["ann", "anna"] {
        edge.ok("POST", "/v1/machines", json!({ "name": name }));
    }
    let refused = |status, method: &str, path: &str, body| edge.refused(status, method, path, body);
    assert_eq!(refused(409, "GET", "/v1/machines/an", Value::Null), "ambiguous");
    assert_eq!(refused(404, "GET", "/v1/machines/nobody", Value::Null), "not-found");
    assert_eq!(refused(404, "GET", "/v2", Value::Null), "not-found");
    assert_eq!(refused(405, "PUT", "/v1/machines", Value::Null), "method-not-allowed");
    assert_eq!(
        refused(422, "POST", "/v1/machines", json!({"name": "x", "colour": "red"})),
        "invalid-argument"
    );
    assert_eq!(refused(422, "POST", "/v1/machines", json!({"name": ""})), "invalid-argument");
    assert_eq!(
        refused(422, "POST", "/v1/machines", json!({"name": "x", "hardware": "fast"})),
        "invalid-argument"
    );
    assert_eq!(
        refused(422, "POST", "/v1/machines", json!({"name": "x", "disks": [{"path": "relative.raw"}]})),
        "invalid-argument"
    );
    assert_eq!(
        refused(404, "POST", "/v1/machines", json!({"name": "x", "adapters": ["nowhere"]})),
        "not-found"
    );
    assert_eq!(refused(409, "POST", "/v1/machines/ann/pause", Value::Null), "invalid-state");
    assert_eq!(refused(409, "GET", "/v1/machines/ann/console", Value::Null), "invalid-state");
    assert_eq!(
        refused(422, "POST", "/v1/machines/ann/shutdown", json!({"timeout_seconds": 1_000_000})),
        "invalid-argument"
    );
    assert_eq!(
        refused(422, "POST", "/v1/machines/ann/export", json!({"directory": "here"})),
        "invalid-argument"
    );
    let (_, ambiguous) = edge.ask("GET", "/v1/machines/an", Value::Null);
    assert!(ambiguous["error"]["hint"].is_string(), "{ambiguous}");
    let (_, word) = edge.ask("POST", "/v1/machines", json!({"name": "x", "hardware": "fast"}));
    assert!(word["error"]["message"].as_str().unwrap().contains("`fast`"), "{word}");
}

#[test]
fn bodies_that_are_no_json_or_too_large_are_refused() {
    use hyper::Request;
    let edge = Edge::new();
    let send = |body: Vec<u8>, kind: &str| {
        let request = Request::builder()
            .method("POST")
            .uri("/v1/machines")
            .header("content-type", kind)
            .body(http_body_util::Full::new(body.into()))
            .unwrap();
        edge.raw(request).status().as_u16()
    };
    assert_eq!(send(b"{".to_vec(), "application/json"), 400);
    assert_eq!(send(b"{}".to_vec(), "text/plain"), 415);
    assert_eq!(send(vec![b' '; rest::server::MAX_BODY + 1], "application/json"), 413);
}

#[test]
fn a_running_guest_has_a_screen_and_a_keyboard() {
    let edge = Edge::new();
    let made = edge.ok("POST", "/v1/machines", json!({"name": "a"}));
    edge.ok("POST", "/v1/machines/a/start", Value::Null);
    let request =
        hyper::Request::get("/v1/machines/a/screenshot").body(http_body_util::Full::default()).unwrap();
    let response = edge.raw(request);
    assert_eq!(response.headers()["content-type"], "image/png");
    let id = made["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        edge.ask("POST", "/v1/machines/a/keys", json!({"text": "ab", "keys": ["ctrl-alt-del"]})).0,
        204
    );
    assert_eq!(edge.engine.control(id).unwrap().typed().len(), 3);
    assert_eq!(
        edge.refused(422, "POST", "/v1/machines/a/keys", json!({"keys": ["nokey"]})),
        "invalid-argument"
    );
    assert_eq!(edge.refused(422, "POST", "/v1/machines/a/keys", json!({})), "invalid-argument");
    assert!(edge.ok("GET", "/v1/machines/a/console", Value::Null)["serial_log"].is_string());
    let left = std::fs::read_dir(edge.dir.path().join("run").join(id.to_string())).unwrap();
    let left =
        left.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with("screen-")).count();
    assert_eq!(left, 0, "no picture is left behind");
}

#[test]
fn switches_are_made_mapped_and_not_deleted_while_used() {
    let edge = Edge::new();
    edge.ok("POST", "/v1/switches", json!({"name": "lab", "kind": "private"}));
    assert_eq!(
        edge.refused(409, "POST", "/v1/switches", json!({"name": "lab", "kind": "nat"})),
        "already-exists"
    );
    assert_eq!(
        edge.refused(422, "POST", "/v1/switches", json!({"name": "x", "kind": "magic"})),
        "invalid-argument"
    );
    let mapped = edge.ok("POST", "/v1/switches/lab/map", json!({"source": "External", "vlan": 7}));
    assert_eq!(mapped["sources"], json!([{"source": "External", "vlan": 7}]));
    edge.ok("POST", "/v1/machines", json!({"name": "a", "adapters": ["lab"]}));
    assert_eq!(edge.refused(409, "DELETE", "/v1/switches/lab", Value::Null), "in-use");
    edge.ok("PATCH", "/v1/machines/a", json!({"adapters": [{"index": 0, "switch": ""}]}));
    assert_eq!(edge.ask("DELETE", "/v1/switches/lab", Value::Null).0, 204);
}

#[test]
fn the_host_says_who_it_is_and_what_it_lacks() {
    let edge = Edge::new();
    assert_eq!(edge.ok("GET", "/v1", Value::Null)["api"], "v1");
    assert_eq!(edge.ok("GET", "/v1/doctor", Value::Null)["usable"], true);
    assert_eq!(edge.ask("GET", "/healthz", Value::Null).0, 200);
}
