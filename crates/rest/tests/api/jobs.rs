//! Jobs over REST: export, import, watching, cancelling, and the event stream that tells of them.

use crate::support::Edge;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// A machine with one small disk, exported; the package's directory.
fn exported(edge: &Edge) -> String {
    edge.ok("POST", "/v1/machines", json!({"name": "web", "generation": 1, "disks": [{"size": 4 << 20}]}));
    let directory = edge.path("package");
    let (status, job) = edge.ask("POST", "/v1/machines/web/export", json!({"directory": directory}));
    assert_eq!(status, 202, "{job}");
    let job = edge.finish(&job);
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(job["owner"], "tester");
    assert_eq!(job["output"]["directory"], directory);
    directory
}

#[test]
fn a_machine_goes_out_and_comes_back_under_a_new_id() {
    let edge = Edge::new();
    let package = exported(&edge);
    assert_eq!(
        edge.refused(409, "POST", "/v1/machines/web/export", json!({"directory": package})),
        "already-exists"
    );

    let dry = edge.ok("POST", "/v1/planned", json!({"path": package, "dry_run": true}));
    assert_eq!(dry["verdict"], "fixable");
    assert_eq!(edge.ok("GET", "/v1/planned", Value::Null)["planned"], json!([]), "a dry run keeps nothing");

    let planned = edge.ok("POST", "/v1/planned", json!({"path": package}));
    let id = planned["id"].as_str().unwrap();
    let finding = planned["findings"].as_array().unwrap().iter().find(|f| f["severity"] == "error").unwrap();
    assert_eq!((&finding["id"], &finding["fix"]), (&json!("duplicate-id"), &json!("--new-id")));
    assert_eq!(
        edge.refused(409, "POST", &format!("/v1/planned/{id}/realize"), Value::Null),
        "not-compatible"
    );

    let edited = edge.ok("PATCH", &format!("/v1/planned/{id}"), json!({"new_id": true, "name": "copy"}));
    assert_eq!(edited["verdict"], "ready", "{edited}");
    let new = edited["id"].as_str().unwrap();
    assert_ne!(new, id);
    let job = edge.ok("POST", "/v1/planned/copy/realize", Value::Null);
    let job = edge.finish(&job);
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(edge.ok("GET", "/v1/machines/copy", Value::Null)["id"], new);
    assert_eq!(edge.ok("GET", "/v1/planned", Value::Null)["planned"], json!([]));
}

#[test]
fn what_is_no_package_is_refused_with_its_reason() {
    let edge = Edge::new();
    assert_eq!(edge.refused(404, "POST", "/v1/planned", json!({"path": edge.path("nothing")})), "not-found");
    assert_eq!(edge.refused(422, "POST", "/v1/planned", json!({"path": "relative"})), "invalid-argument");
    let file = edge.path("noise.vmcx");
    std::fs::write(&file, b"noise").unwrap();
    assert_eq!(edge.refused(422, "POST", "/v1/planned", json!({"path": file})), "bad-package");
    assert_eq!(edge.refused(404, "DELETE", "/v1/planned/nobody", Value::Null), "not-found");
    let options = json!({"path": file, "options": {"disk_bus": "floppy"}});
    assert_eq!(edge.refused(422, "POST", "/v1/planned", options), "invalid-argument");
}

#[test]
fn jobs_are_listed_found_by_prefix_and_not_cancelled_when_over() {
    let edge = Edge::new();
    exported(&edge);
    let all = edge.ok("GET", "/v1/jobs", Value::Null);
    let id = all["jobs"][0]["id"].as_str().unwrap();
    let count = |query: &str| {
        edge.ok("GET", &format!("/v1/jobs?{query}"), Value::Null)["jobs"].as_array().unwrap().len()
    };
    assert_eq!(count("kind=export"), 1);
    assert_eq!(count("kind=import"), 0);
    let (status, problem) = edge.ask("GET", "/v1/jobs?kind=exprt", Value::Null);
    assert_eq!(status, 422);
    assert!(problem["error"]["hint"].as_str().unwrap().contains("`export`"), "{problem}");
    assert_eq!(count("machine=web&finished=true"), 1);
    assert_eq!(count("finished=false"), 0);
    assert_eq!(count("machine=nobody"), 0);
    assert_eq!(count("limit=0"), 0);
    assert_eq!(edge.ok("GET", &format!("/v1/jobs/{}", &id[..13]), Value::Null)["id"], id);
    assert_eq!(edge.refused(404, "GET", "/v1/jobs/zzz", Value::Null), "not-found");
    assert_eq!(edge.refused(409, "POST", &format!("/v1/jobs/{id}/cancel"), Value::Null), "invalid-state");
    assert_eq!(edge.refused(409, "POST", &format!("/v1/jobs/{id}/discard"), Value::Null), "invalid-state");
    assert_eq!(
        edge.refused(422, "GET", &format!("/v1/jobs/{id}?wait_seconds=3600"), Value::Null),
        "invalid-argument"
    );
    assert_eq!(edge.refused(422, "GET", "/v1/jobs?colour=red", Value::Null), "invalid-argument");
}

#[test]
fn the_stream_tells_of_machines_and_jobs_and_goes_on_where_it_was() {
    let edge = Edge::new();
    let request = |last: Option<&str>| {
        let builder = hyper::Request::get("/v1/events");
        let builder = if let Some(id) = last { builder.header("last-event-id", id) } else { builder };
        edge.raw(builder.body(http_body_util::Full::default()).unwrap()).into_body()
    };
    let mut stream = request(None);
    let machine = edge.ok("POST", "/v1/machines", json!({"name": "a"}));
    let first = edge.tokio.block_on(next(&mut stream));
    assert_eq!(first.name, "machine");
    assert_eq!((&first.data["id"], &first.data["state"]), (&machine["id"], &json!("off")));

    edge.ok("POST", "/v1/machines/a/start", Value::Null);
    // States between may be skipped, the last one never.
    loop {
        let event = edge.tokio.block_on(next(&mut stream));
        if event.data["state"] == "running" {
            break;
        }
    }
    drop(stream);

    let mut again = request(Some(&first.id));
    assert_eq!(edge.tokio.block_on(next(&mut again)).data["state"], "running", "only what is newer");
    let mut anew = request(Some("00000000-9-9"));
    assert_eq!(
        edge.tokio.block_on(next(&mut anew)).data["id"],
        machine["id"],
        "another process's id starts over"
    );

    edge.ok("POST", "/v1/machines/a/stop", Value::Null);
    let job = edge.ok("POST", "/v1/machines/a/export", json!({"directory": edge.path("out")}));
    loop {
        let event = edge.tokio.block_on(next(&mut again));
        if event.name == "job" && event.data["finished"] == true {
            assert_eq!(event.data["id"], job["job"]);
            break;
        }
    }
}

struct Event {
    name: String,
    id: String,
    data: Value,
}

/// The next event; each is one frame of the body.
async fn next(body: &mut axum::body::Body) -> Event {
    loop {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let text = std::str::from_utf8(&frame).unwrap();
        let field = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned()
        };
        let data = field("data:");
        if !data.is_empty() {
            return Event {
                name: field("event:"),
                id: field("id:"),
                data: serde_json::from_str(&data).unwrap(),
            };
        }
    }
}
