//! The table of what is served, class by class and method by method: `docs/hyperv-classes.md` is made of the same tables
//! that requests are answered from, and this test compares the two.
//!
//! `UPDATE_CLASSES=1 cargo test -p slipway-hyperv coverage` writes it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use cim::Class;

use crate::provider::Namespace;
use crate::{interop, schema, v1};

fn namespaces() -> [Arc<Namespace>; 4] {
    let virtualization = Arc::new(Namespace::virtualization(schema::virtualization().expect("the schema")));
    let first = v1::namespace(schema::virtualization_v1().expect("the schema"), Arc::clone(&virtualization));
    let cimv2 = Namespace::cimv2(schema::cimv2().expect("the schema"));
    let interop = interop::namespace(schema::interop().expect("the schema"), Arc::clone(&virtualization));
    [virtualization, Arc::new(first), Arc::new(cimv2), Arc::new(interop)]
}

fn table() -> String {
    let mut text = "# Hyper-V's classes: what is served\n\nMade by a test from the tables that requests are answered from (`UPDATE_CLASSES=1 cargo test -p slipway-hyperv \
                    coverage`).\n\nEvery class below is there with all its properties and methods, and can be asked for. *Instances*: there are some as soon as there is a \
                    machine, a switch or a job. A method that is *not supported* says so with the return value that its page gives for it. What is in neither list of a \
                    namespace is absent.\n"
        .to_owned();
    for namespace in namespaces() {
        let served = |class: &Class, name: &str| {
            namespace
                .methods
                .iter()
                .any(|m| m.name == name && namespace.schema.is_a(class.name.as_str(), m.class))
        };
        let filled = |class: &Class| {
            namespace.providers.iter().any(|p| class.name == p.class)
                || namespace.associations().any(|a| class.name == a.class)
        };
        let _ = write!(
            text,
            "\n## {}\n\n| class | instances | methods that do something | methods not supported |\n|---|---|---|---|\n",
            namespace.name
        );
        let mut classes: Vec<_> = namespace.schema.classes().filter(|class| !class.is_abstract()).collect();
        classes.sort_by(|a, b| a.name.cmp(&b.name));
        let (shown, bare): (Vec<_>, Vec<_>) =
            classes.into_iter().partition(|class| filled(class) || !class.methods.is_empty());
        for class in shown {
            let names = |wanted: bool| {
                let mut names: Vec<_> = class
                    .methods
                    .iter()
                    .map(|method| method.name.as_str())
                    .filter(|name| served(class, name) == wanted)
                    .collect();
                names.sort_unstable();
                names.join(", ")
            };
            let instances = if filled(class) { "yes" } else { "none yet" };
            let _ = writeln!(text, "| {} | {instances} | {} | {} |", class.name, names(true), names(false));
        }
        let bare: Vec<_> = bare.iter().map(|class| class.name.as_str()).collect();
        if !bare.is_empty() {
            let _ =
                write!(text, "\nDeclared, without methods and without instances yet: {}.\n", bare.join(", "));
        }
    }
    text
}

#[test]
fn the_checked_in_table_is_what_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hyperv-classes.md");
    let served = table();
    if std::env::var_os("UPDATE_CLASSES").is_some() {
        std::fs::write(&path, &served).expect("written");
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == served,
        "docs/hyperv-classes.md is not what is served: UPDATE_CLASSES=1 cargo test -p slipway-hyperv coverage"
    );
}

/// A method in the table that no class declares would never be called.
#[test]
fn every_method_that_does_something_is_declared() {
    for namespace in namespaces() {
        for method in namespace.methods {
            let class = namespace.schema.class(method.class);
            let declared = class.is_some_and(|c| c.method(method.name).is_some());
            assert!(declared, "{}: {}.{}", namespace.name, method.class, method.name);
        }
    }
}
