//! The whole interface over a simulated engine and a store in memory, asked without a socket.

use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::service::TowerToHyperService;
use machine::{Host, HostOptions};
use rest::server::{Parts, Peer};
use serde_json::Value;

/// A host, its interface, and the directory it lives in.
pub(crate) struct Edge {
    pub(crate) parts: Parts,
    pub(crate) engine: engine::SimEngine,
    pub(crate) router: axum::Router,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) tokio: tokio::runtime::Runtime,
}

impl Edge {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine::SimEngine::new();
        let store: Arc<dyn store::Store> = Arc::new(store::MemoryStore::new());
        let host = Host::open(HostOptions {
            data: dir.path().join("data"),
            runtime: dir.path().join("run"),
            store: Arc::clone(&store),
            engine: Arc::new(engine.clone()),
            facts: None,
            jobs: job::Options::default(),
            boot: None,
        })
        .unwrap();
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let parts = Parts {
            host,
            users: Arc::new(access::Users::new(store)),
            audit: Arc::new(access::Audit::new(dir.path().join("audit.log"))),
            simulation: None,
        };
        let router =
            rest::server::router(parts.clone()).layer(axum::Extension(Peer { name: "tester".to_owned() }));
        Self { parts, engine, router, dir, tokio }
    }

    /// Sends a request as it is and gives the answer as it comes.
    pub(crate) fn raw(&self, request: Request<Full<Bytes>>) -> Response<axum::body::Body> {
        let service = TowerToHyperService::new(self.router.clone());
        self.tokio.block_on(service.call(request)).unwrap()
    }

    /// Status and JSON body; `Null` for an empty one.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .unwrap();
        let response = self.raw(request);
        let status = response.status();
        let bytes = self.tokio.block_on(response.into_body().collect()).unwrap().to_bytes();
        let value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        };
        (status, value)
    }

    /// The body of a request that succeeds.
    pub(crate) fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, value) = self.ask(method, path, body);
        assert!(status.is_success(), "{method} {path}: {status} {value}");
        value
    }

    /// The id of the refusal of a request that is refused with `status`.
    pub(crate) fn refused(&self, status: u16, method: &str, path: &str, body: Value) -> String {
        let (found, value) = self.ask(method, path, body);
        assert_eq!(found.as_u16(), status, "{method} {path}: {value}");
        let error = &value["error"];
        assert!(!error["message"].as_str().unwrap_or_default().is_empty(), "{value}");
        error["id"].as_str().unwrap().to_owned()
    }

    /// The finished job.
    pub(crate) fn finish(&self, job: &Value) -> Value {
        let id = job["job"].as_str().unwrap();
        let mut generation = 0;
        loop {
            let job = self.ok(
                "GET",
                &format!("/v1/jobs/{id}?wait_seconds=60&generation={generation}"),
                Value::Null,
            );
            if job["finished"] == true {
                return job;
            }
            generation = job["generation"].as_u64().unwrap();
        }
    }

    /// A path below the test's directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}
