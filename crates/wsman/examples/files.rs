//! Serves files through the same server as WS-Management: what any answer costs before it means something.
//!
//! `cargo run --release -p slipway-wsman --example files DIRECTORY` prints its address and answers a POST to `/NAME` with
//! the file of that name, to whoever sends any name and password. The benchmark of the API compares itself with this.

#![allow(clippy::print_stdout, reason = "it is a program, and tells its address")]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use wsman::Principal;
use wsman::server::{
    Attempt, Basic, Handler, Limits, Listener, Proof, Refusal, Reply, Request, Watchman, serve,
};

struct Files(PathBuf);

impl Files {
    fn at(&self, path: &str) -> Option<PathBuf> {
        let name = path.strip_prefix('/').filter(|name| !name.is_empty() && !name.contains(['/', '\\']))?;
        (name != "..").then(|| self.0.join(name))
    }
}

impl Handler for Files {
    fn serves(&self, path: &str) -> bool {
        self.at(path).is_some()
    }

    fn anonymous(&self, _: &str, _: bool) -> bool {
        false
    }

    fn answer(&self, request: &Request) -> Attempt {
        let reply = match self.at(&request.path).map(std::fs::read) {
            Some(Ok(body)) => {
                let content_type = Some("application/soap+xml;charset=UTF-8");
                Reply { content_type, body, ..Reply::empty(200) }
            }
            _ => Reply::empty(404),
        };
        reply.into()
    }
}

struct Nobody;

impl Watchman for Nobody {
    fn refused(&self, _: &str, _: SocketAddr, _: &str) {}
    fn admitted(&self, _: &Principal, _: SocketAddr) {}
}

fn main() -> io::Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| io::Error::other("usage: files DIRECTORY"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None)?;
        println!("http://{}", listener.address()?);
        let anybody = |proof: Proof<'_>| match proof {
            Proof::Password { user, .. } => Ok(user.to_owned()),
            _ => Err(Refusal { why: "send a name and a password".to_owned(), wait: None }),
        };
        let authenticator = Arc::new(Basic::new(anybody, false));
        let (handler, watchman) = (Arc::new(Files(directory)), Arc::new(Nobody));
        serve(
            vec![listener],
            handler,
            authenticator,
            watchman,
            Limits::default(),
            std::future::pending::<()>(),
        )
        .await;
        Ok(())
    })
}
