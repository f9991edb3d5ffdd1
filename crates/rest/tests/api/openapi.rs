//! The checked-in OpenAPI document is the one that is served, and it knows every route.
//!
//! `UPDATE_OPENAPI=1 cargo test -p slipway-rest openapi` writes it anew.

use std::path::Path;

#[test]
fn the_checked_in_document_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let mut served = serde_json::to_string_pretty(&rest::openapi::document()).unwrap();
    served.push('\n');
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == served,
        "docs/openapi.json is not what is served: UPDATE_OPENAPI=1 cargo test -p slipway-rest openapi"
    );
}

#[test]
fn every_route_is_in_the_document() {
    let document = serde_json::to_value(rest::openapi::document()).unwrap();
    let source = include_str!("../../src/server/mod.rs");
    let routes: Vec<&str> = source.split(".route(\"").skip(1).filter_map(|r| r.split('"').next()).collect();
    assert!(routes.len() > 20, "{routes:?}");
    for route in routes.into_iter().filter(|r| !["/healthz", "/metrics", "/v1/openapi.json"].contains(r)) {
        assert!(document["paths"][route].is_object(), "{route} is not documented");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = serde_json::to_value(rest::openapi::document()).unwrap();
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|r| r.split('"').next()) {
        assert!(document["components"]["schemas"][reference].is_object(), "{reference} is not defined");
    }
}
