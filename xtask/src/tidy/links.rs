//! Every relative link in a Markdown file leads somewhere, and every page of `docs/` can be found from its index.

use super::{File, Finding};
use std::path::Path;

pub(super) fn check(root: &Path, files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".md")) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        let mut fenced = false;
        for (number, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            for target in targets(line) {
                let path = target.split(['#', '?']).next().unwrap_or_default();
                let outside = path.contains("://") || path.starts_with("mailto:");
                if !path.is_empty() && !outside && !root.join(folder).join(path).exists() {
                    findings.push(Finding::new(
                        format!("{}:{}", file.path, number + 1),
                        format!("links to {path}, which is not there"),
                    ));
                }
            }
        }
    }
    findings.extend(unlisted(files));
    findings
}

/// Pages that docs/README.md does not link to.
fn unlisted(files: &[File]) -> Vec<Finding> {
    const INDEX: &str = "docs/README.md";
    let index = files.iter().find(|f| f.path == INDEX).map_or("", |f| f.text.as_str());
    let pages = files.iter().filter(|f| f.path.ends_with(".md") && f.path != INDEX);
    pages
        .filter_map(|f| f.path.strip_prefix("docs/"))
        .filter(|page| !index.contains(&format!("]({page})")))
        .map(|page| Finding::new(format!("docs/{page}"), format!("is not listed in {INDEX}")))
        .collect()
}

/// What stands in `](…)` on a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, _)| {
        let rest = &line[at + 2..];
        rest.split_once(')').map(|(target, _)| target.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_link_is_found_and_code_is_left_alone() {
        let text =
            "See [a](there.md#x), [b](gone.md) and [c](https://example.org/x).\n```text\n[d](gone.md)\n```\n";
        let files = [File { path: "README.md".to_owned(), text: text.to_owned() }];
        let folder = std::env::temp_dir().join(format!("xtask-links-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("there.md"), "").expect("a file");
        let found: Vec<String> = check(&folder, &files).into_iter().map(|f| f.message).collect();
        std::fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(found, ["links to gone.md, which is not there"]);
    }
}
