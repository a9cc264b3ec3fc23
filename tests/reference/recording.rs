//! `docs/figures/rollback.svg`: the recorded output of `make demo` as a terminal that plays it, until the bad change is
//! rolled back and with the reason for it. `make recording` records it again.

use std::fmt::Write as _;

/// Pixels of a line of text, of a letter, and around the text.
const LINE: usize = 19;
const LETTER: usize = 8;
const MARGIN: usize = 20;
/// Seconds from the last row of the table to the summary, and from one line of the summary to the next.
const PAUSE: f64 = 1.0;
const NEXT_LINE: f64 = 0.2;
/// Seconds for which the whole recording is shown before it begins again.
const REST: f64 = 12.0;

const STYLE: &str = "text{fill:#c9d1d9;white-space:pre}
.prompt{fill:#7ee2a8;font-weight:bold}.head{fill:#8b949e}.bad{fill:#ff9492}
@media(prefers-reduced-motion:reduce){text{animation:none!important}}
";

/// A line, its class, and the second at which it appears.
struct Line {
    text: String,
    class: &'static str,
    at: f64,
}

pub fn picture(recording: &str) -> String {
    let (name, lines) = rollback(recording);
    let ends = lines.last().map_or(0.0, |line| line.at) + REST;
    let longest = lines.iter().map(|line| line.text.chars().count()).max();
    let width = longest.unwrap_or_default() * LETTER + 2 * MARGIN;
    let height = lines.len() * LINE + 2 * MARGIN;
    let (mut style, mut texts) = (STYLE.to_owned(), String::new());
    for (index, line) in lines.iter().enumerate() {
        let y = MARGIN + (index + 1) * LINE - LINE / 4;
        let mut timing = String::new();
        if line.at > 0.0 {
            let share = 100.0 * line.at / ends;
            writeln!(
                style,
                "@keyframes l{index}{{0%{{opacity:0}}{share:.2}%{{opacity:1}}}}"
            )
            .unwrap();
            timing = format!(" style=\"animation:l{index} {ends:.1}s step-end infinite\"");
        }
        let (class, text) = (line.class, escaped(&line.text));
        writeln!(
            texts,
            "<text x=\"{MARGIN}\" y=\"{y}\" class=\"{class}\"{timing}>{text}</text>"
        )
        .unwrap();
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"title description\" xml:space=\"preserve\" font-size=\"13\" \
         font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,monospace\">\n\
         <title id=\"title\">make demo: a bad change is rolled back</title>\n\
         <desc id=\"description\">A terminal with the output of make demo. The new version of {name} fails some of its \
         requests at its first step; the operator rolls it back, and the summary shows the risk, the evidence and \
         the time that it took.</desc>\n\
         <style>\n{style}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"10\" fill=\"#0d1117\"/>\n{texts}</svg>\n"
    )
}

/// The Rollout that is rolled back, and the lines of the recording up to that, with its summary.
fn rollback(recording: &str) -> (&str, Vec<Line>) {
    let mut all = recording.lines();
    let head = all.find(|line| line.trim_start().starts_with("TIME "));
    let head = head.unwrap_or_else(|| panic!("the recording has no table: {recording}"));
    let rows: Vec<_> = all.by_ref().take_while(|line| !line.is_empty()).collect();
    let back = rows.iter().find(|row| row.contains(" RollingBack "));
    let back = back.unwrap_or_else(|| panic!("nothing is rolled back: {recording}"));
    let name = name_of(back);
    let last = rows.iter().rposition(|row| name_of(row) == name).unwrap();

    let line = |text: &str, class, at| Line {
        text: text.to_owned(),
        class,
        at,
    };
    let mut lines = vec![line("$ make demo", "prompt", 0.0), line(head, "head", 0.0)];
    let mut at = 0.0;
    for row in &rows[..=last] {
        at = row.split_whitespace().next().unwrap().parse().unwrap();
        let is_bad = [" RollingBack ", " Degraded "]
            .iter()
            .any(|it| row.contains(it));
        lines.push(line(row, if is_bad { "bad" } else { "row" }, at));
    }
    let mut summary = all.skip_while(|line| !line.starts_with(&format!("{name}: ")));
    let first = summary.next();
    let first = first.unwrap_or_else(|| panic!("{name} has no summary: {recording}"));
    let facts = summary.take_while(|line| line.starts_with("  "));
    at += PAUSE;
    lines.push(line("", "row", at));
    for text in std::iter::once(first).chain(facts) {
        lines.push(line(text, "row", at));
        at += NEXT_LINE;
    }
    (name, lines)
}

/// The Rollout of a row, which is its third word, after the time and its unit.
fn name_of(row: &str) -> &str {
    let name = row.split_whitespace().nth(2);
    name.unwrap_or_else(|| panic!("no row of the table: {row}"))
}

/// Text within an element of XML.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[test]
fn the_recording_plays_the_rollback_and_ends_with_its_reason() {
    let recording = "\
In namespace demo: examples/policy.yaml
web and login serve.

   TIME  ROLLOUT PHASE           STEP WEIGHT
  0.2 s  web     Progressing     0/2      0%
  1.1 s  login   Progressing     1/4      5%
  5.1 s  login   RollingBack     -        0%
  6.0 s  web     Promoted        -      100%

web: image
  outcome  Promoted
login: image
  verdict  AnalysisFailed: canary 15% < all & sundry
  outcome  RolledBack
billing: image
  outcome  Promoted
All ended as promised.
";
    let (name, lines) = rollback(recording);
    assert_eq!(name, "login");
    let shown: Vec<_> = lines
        .iter()
        .map(|line| (line.at, line.text.trim()))
        .collect();
    assert_eq!(shown[0], (0.0, "$ make demo"));
    assert_eq!(
        shown[4],
        (5.1, "5.1 s  login   RollingBack     -        0%")
    );
    assert_eq!(shown[6], (6.1, "login: image"));
    assert_eq!(shown[8].1, "outcome  RolledBack");
    assert_eq!(shown.len(), 9);

    let picture = picture(recording);
    assert!(
        picture.contains("canary 15% &lt; all &amp; sundry"),
        "{picture}"
    );
    assert!(
        picture.contains("class=\"bad\" style=\"animation:l4 "),
        "{picture}"
    );
    assert!(!picture.contains("Promoted"), "{picture}");
    assert_eq!(picture.matches("@keyframes").count(), 7);
}
