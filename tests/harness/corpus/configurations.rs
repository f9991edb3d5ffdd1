//! Configurations in XML that are made to exhaust a reader, or to say two things at once.

use super::{Case, ID, IDE, MACHINES, Site, found, harmless, misunderstood, refused};
use crate::bundle::{Entry, Sparse};

/// The sound configuration as text, with something more at its end.
fn text(more: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-16\" standalone=\"yes\"?>\r\n<configuration>\r\n  <properties>\r\n    \
         <global_id type=\"string\">{ID}</global_id>\r\n    <name type=\"string\">hostile</name>\r\n  \
         </properties>\r\n  {more}</configuration>"
    )
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = broken()
        .into_iter()
        .map(|(name, what, text)| {
            Site::of_xml(&text).case(&format!("xml-{name}"), what, refused("package.configuration"))
        })
        .collect();
    cases.extend(encodings());
    cases.extend(surroundings());
    cases
}

fn broken() -> Vec<(&'static str, &'static str, String)> {
    let laughs: String = (1..12).fold("<!ENTITY a0 \"ha\">".to_owned(), |all, n| {
        format!("{all}\n<!ENTITY a{n} \"{}\">", format!("&a{};", n - 1).repeat(10))
    });
    let doctype = |inside: &str| {
        text("<a type=\"string\">&x;</a>").replacen(
            "<configuration>",
            &format!("<!DOCTYPE configuration [{inside}]><configuration>"),
            1,
        )
    };
    let namespaces: String = (0..200).map(|n| format!("<a xmlns:n{n}=\"u\">")).collect();
    let attributes: String = (0..400).map(|n| format!(" a{n}=\"\"")).collect();
    let value = |kind: &str, value: &str| text(&format!("<a type=\"{kind}\">{value}</a>"));
    vec![
        (
            "laughs",
            "Entities that multiply a thousand million times.",
            doctype(&format!("{laughs}<!ENTITY x \"&a11;\">")),
        ),
        ("outside", "An entity that is another file.", doctype("<!ENTITY x SYSTEM \"file:///etc/passwd\">")),
        (
            "outside-by-name",
            "A document type that lies elsewhere.",
            text("").replacen(
                "<configuration>",
                "<!DOCTYPE configuration SYSTEM \"../../outside/secret.vhdx\"><configuration>",
                1,
            ),
        ),
        (
            "parameter",
            "An entity that loads others.",
            doctype("<!ENTITY % p SYSTEM \"file:///etc/passwd\">%p;"),
        ),
        ("undefined", "An entity that nobody defined.", value("string", "&x;")),
        (
            "deep",
            "A hundred thousand elements in one another.",
            text(&format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000))),
        ),
        (
            "unclosed",
            "A hundred thousand elements that do not end.",
            text(&"<a>".repeat(100_000)).replace("</configuration>", ""),
        ),
        ("wide", "More elements than are read.", text(&"<a/>".repeat(300_000))),
        (
            "namespaces",
            "More namespaces than a parser copies in reasonable time.",
            text(&format!("{namespaces}{}", "</a>".repeat(200))),
        ),
        (
            "attributes",
            "More attributes than a parser compares in reasonable time.",
            text(&format!("<a{attributes}/>")),
        ),
        (
            "equals-signs",
            "A text by which a parser makes room for a million attributes.",
            value("string", &"=".repeat(1_200_000)),
        ),
        ("long-name", "An element's name of a megabyte.", text(&format!("<{}/>", "n".repeat(1 << 20)))),
        ("comment", "A comment that does not end.", text(&format!("<!--{}", "- ".repeat(50_000)))),
        ("large-number", "A number larger than any integer.", value("integer", "99999999999999999999999999")),
        ("no-number", "A number that is none.", value("integer", "0x10")),
        ("no-base64", "Bytes that are none.", value("bytes", "====!")),
        ("neither-true-nor-false", "A truth of a third kind.", value("bool", "perhaps")),
        ("unknown-type", "A type that there is not.", value("object", "")),
        ("elements-in-a-value", "A value with elements inside.", value("string", "<b/>")),
        ("two-roots", "Two machines in one document.", format!("{0}<configuration/>", text(""))),
        ("cut", "A document that ends in the middle.", text("").split_at(180).0.to_owned()),
        ("control-character", "A character that XML does not have.", value("string", "a\u{1}b")),
    ]
}

fn encodings() -> Vec<Case> {
    let mut half = Site::empty();
    let mut bytes: Vec<u8> =
        [0xFEFF].into_iter().chain(text("").encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let whole = bytes.clone();
    bytes.truncate(bytes.len() - 1);
    half.file(&format!("{MACHINES}/{ID}.xml"), bytes);
    let mut unpaired = Site::empty();
    let mut bytes = whole;
    let at = bytes.len() - 40;
    bytes[at..at + 2].copy_from_slice(&0xd800_u16.to_le_bytes());
    unpaired.file(&format!("{MACHINES}/{ID}.xml"), bytes);
    let mut latin = Site::empty();
    latin.file(
        &format!("{MACHINES}/{ID}.xml"),
        text("").replace("hostile", "h\u{e9}").chars().map(|c| c as u8).collect::<Vec<u8>>(),
    );
    let mut hole = Site::empty();
    let mut gigabyte = Sparse::new(1 << 30);
    gigabyte.put(0, b"<configuration><a type=\"string\">");
    hole.file(&format!("{MACHINES}/{ID}.xml"), gigabyte);
    let mut endless = Site::empty();
    let mut sparse = Sparse::new(1 << 42);
    sparse.put(0, b"<configuration>");
    endless.file(&format!("{MACHINES}/{ID}.xml"), sparse);
    let bad = || refused("package.configuration");
    vec![
        half.case("xml-half-a-character", "UTF-16 that ends inside a character.", bad()),
        unpaired.case("xml-half-a-pair", "UTF-16 with half of a surrogate pair.", bad()),
        latin.case("xml-of-no-encoding", "Bytes that are neither UTF-16 nor UTF-8.", bad()),
        hole.case("xml-of-a-gigabyte", "One text of a gigabyte.", bad()),
        endless.case("xml-of-four-terabytes", "A file that is mostly a hole.", bad()),
    ]
}

/// What is sound XML and yet no machine, or a strange one.
fn surroundings() -> Vec<Case> {
    let of = |text: String| Site::of_xml(&text);
    let nothing = |site: Site, name: &str, what: &str| site.case(name, what, misunderstood());
    let huge = text(
        "<settings><memory><bank><size type=\"integer\">9223372036854775807</size></bank></memory>\
        <processors><count type=\"integer\">4294967295</count></processors></settings>",
    );
    let negative = text(
        "<settings><memory><bank><size type=\"integer\">-1</size></bank></memory>\
        <processors><count type=\"integer\">-1</count></processors></settings>",
    );
    let tiny = text("<settings><memory><bank><size type=\"integer\">1</size></bank></memory></settings>");
    let again = text(&format!(
        "<properties><name type=\"string\">another</name></properties><{IDE}><controller0/><controller0/></{IDE}>"
    ));
    let slot = text(&format!(
        "<{IDE}><controller4294967295><drive4294967295><type type=\"string\">VHD</type><pathname type=\"string\">\
         C:\\x.vhdx</pathname></drive4294967295></controller4294967295></{IDE}>"
    ));
    let mut two = Site::sound();
    two.file(&format!("{MACHINES}/0E570000-0000-4000-8000-00000000BAD2.vmcx"), b"x".to_vec());
    let mut crowd = Site::sound();
    crowd.add(Entry::Files(10_001, format!("{MACHINES}/{{}}.tmp").into()));
    let mut checkpoints = Site::sound();
    checkpoints.add(Entry::Files(257, b"package/Snapshots/{}.vmcx".to_vec()));
    vec![
        nothing(
            of("<configurations/>".to_owned()),
            "xml-of-another-root",
            "A document that is no configuration.",
        ),
        nothing(of(text("").replace(ID, "")), "xml-without-id", "A machine without an id."),
        nothing(
            of(text("").replace(ID, "../../outside")),
            "xml-with-a-path-for-an-id",
            "A machine whose id is a path.",
        ),
        of(huge).case(
            "huge-machine",
            "More memory and processors than there are numbers for.",
            found("processors-beyond-host", ""),
        ),
        of(negative).case(
            "negative-machine",
            "Less than no memory, and less than no processors.",
            harmless(""),
        ),
        of(tiny).case("tiny-machine", "Less memory than any machine has.", found("setting-invalid", "")),
        of(again).case("keys-twice", "Keys that are there twice.", harmless("")),
        of(slot).case(
            "slot-beyond-all",
            "A disk in the last slot that can be counted.",
            found("disk-missing", "package.disk-missing"),
        ),
        two.case("two-machines", "Two machines in one package.", refused("bad-package")),
        crowd.case("crowd-of-files", "More files than are looked at.", refused("bad-package")),
        checkpoints.case(
            "crowd-of-checkpoints",
            "More checkpoints than any machine has.",
            refused("bad-package"),
        ),
    ]
}
