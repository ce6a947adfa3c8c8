//! A page of plots and tables from the reports of a folder: one HTML file that needs nothing else,
//! with the plots as SVG inside.
//!
//! A plot appears where a report has what it shows: curves of latency ([`curves`]), the matrix of
//! losses ([`heat`]), figures over a quantity ([`points`]), CPU time per message ([`bars`]).

mod bars;
mod canvas;
mod curves;
mod heat;
mod points;

use std::path::Path;

use super::stored::{Stored, read_all};
use crate::error::{BenchError, Tried};
use canvas::Palette;

/// One plot with what a reader must know of it.
struct Plot {
    title: String,
    note: String,
    svg: String,
    /// Colours and what they stand for.
    legend: Vec<(String, String)>,
}

/// Writes the page of the reports in a folder; says what it left out.
///
/// # Errors
/// When there is no report, or the page can't be written.
pub fn write_page(folder: &Path, page: &Path) -> Result<(), BenchError> {
    let (reports, others) = read_all(folder)?;
    for other in others {
        eprintln!("left out, no report of this program: {}", other.display());
    }
    std::fs::write(page, render(&reports)?).tried(format!("write {}", page.display()))
}

fn render(reports: &[Stored]) -> Result<String, BenchError> {
    let drawn = reports.iter().filter(|report| !report.curves.is_empty());
    let palette = Palette::new(drawn.map(|report| report.name.clone()).collect());
    let mut plots = curves::plots(reports, &palette)?;
    plots.extend(heat::plots(reports)?);
    plots.extend(points::plots(reports, &palette)?);
    plots.extend(bars::plots(reports)?);
    let mut html = String::from(HEAD);
    html.push_str(&machines(reports));
    html.push_str(&commands(reports));
    for plot in &plots {
        html.push_str(&section(plot));
    }
    html.push_str("<h2>All figures</h2>\n");
    for report in reports {
        html.push_str(&details(report));
    }
    html.push_str("</body></html>\n");
    Ok(html)
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
<title>Tern, measured</title>\n<style>\n\
body{font:15px/1.5 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}\n\
svg{max-width:100%;height:auto}\n\
table{border-collapse:collapse;margin:.5em 0}\n\
td,th{padding:.1em .8em .1em 0;text-align:left;vertical-align:top}\n\
td.n{text-align:right;font-variant-numeric:tabular-nums}\n\
th.g{padding-top:.8em}\n\
.key{display:inline-block;margin-right:1.4em}\n\
.key i{display:inline-block;width:1.6em;height:.35em;margin-right:.5em;vertical-align:middle}\n\
code{background:#f3f3f3;padding:.1em .3em}\n\
summary{cursor:pointer;margin:.4em 0}\n\
.note{color:#555}\n</style></head><body>\n<h1>Tern, measured</h1>\n";

/// Where and of what all this is, each place once.
fn machines(reports: &[Stored]) -> String {
    let mut seen: Vec<String> = Vec::new();
    for Stored { machine, subject, .. } in reports {
        let place = if subject.pinned { "server on a core of its own" } else { "not pinned" };
        let line = format!(
            "<li>{}, {} cores, {} MiB, Linux {}, {}; {}; {place}</li>\n",
            escaped(&machine.cpu),
            machine.cores,
            machine.memory_mib,
            escaped(&machine.kernel),
            escaped(&machine.file_system),
            escaped(&subject.version),
        );
        if !seen.contains(&line) {
            seen.push(line);
        }
    }
    let busiest = reports
        .iter()
        .filter_map(|report| report.spread("disturbance", crate::scenario::OTHERS))
        .map(|spread| spread.most)
        .reduce(f64::max);
    let disturbance = busiest.map(|busiest| {
        format!(
            "<p class=\"note\">Other processes used up to {busiest:.0} % of all cores during these \
             runs. Times are as good as that is small.</p>\n"
        )
    });
    format!("<ul>\n{}</ul>\n{}", seen.concat(), disturbance.unwrap_or_default())
}

/// Options that say where things are: they tell nothing of what was measured.
const PLACES: [&str; 5] = ["--out", "--json", "--name", "--data", "--tern"];

/// What each report is of: names such as `latency-2` say little.
fn commands(reports: &[Stored]) -> String {
    let rows = reports.iter().map(|report| {
        let (name, command) = (escaped(&report.name), escaped(&asked(&report.command)));
        format!("<tr><td>{name}</td><td><code>{command}</code></td></tr>\n")
    });
    format!("<table>\n{}</table>\n", rows.collect::<String>())
}

/// A command line without the program and without places.
fn asked(command: &[String]) -> String {
    let mut words = Vec::new();
    let mut rest = command.iter().skip(1);
    while let Some(word) = rest.next() {
        if PLACES.contains(&word.as_str()) {
            rest.next(); // the place
        } else if !PLACES.iter().any(|option| word.starts_with(&format!("{option}="))) {
            words.push(word.as_str());
        }
    }
    words.join(" ")
}

fn section(plot: &Plot) -> String {
    let keys = plot.legend.iter().map(|(colour, name)| {
        format!(
            "<span class=\"key\"><i style=\"background:{colour}\"></i>{}</span>\n",
            escaped(name)
        )
    });
    format!(
        "<h2>{}</h2>\n<p class=\"note\">{}</p>\n<p>{}</p>\n{}\n",
        escaped(&plot.title),
        escaped(&plot.note),
        keys.collect::<String>(),
        plot.svg
    )
}

/// Every figure of a report, folded away.
fn details(report: &Stored) -> String {
    let mut rows = String::new();
    let mut group = "";
    for figure in report.figures() {
        if figure.group != group {
            group = &figure.group;
            rows.push_str(&format!(
                "<tr><th class=\"g\" colspan=\"3\">{}</th></tr>\n",
                escaped(group)
            ));
        }
        let text = report.spread(&figure.group, &figure.name).map(|spread| spread.text());
        rows.push_str(&format!(
            "<tr><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
            escaped(&figure.name),
            text.unwrap_or_default(),
            escaped(&figure.unit)
        ));
    }
    let runs = match report.runs.len() {
        1 => "1 run".to_owned(),
        runs => format!("{runs} runs, median (least to most)"),
    };
    let discarded = match report.discarded {
        0 => String::new(),
        count => format!(", {count} disturbed runs discarded"),
    };
    format!(
        "<details><summary>{}, {runs}{discarded}</summary>\n<p><code>{}</code></p>\n\
         <table>\n{rows}</table></details>\n",
        escaped(&report.name),
        escaped(&report.command.join(" "))
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::super::stored::tests::stored;
    use super::*;
    use crate::measure::curves::Curves;
    use crate::measure::latency::Latency;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_command_is_told_without_its_places() {
        let command = "/x/tern-bench latency --out=/y --rate 9 --tern /z/tern --pin";
        let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
        assert_eq!(asked(&command), "latency --rate 9 --pin");
        assert_eq!(asked(&[]), "");
    }

    #[test]
    fn a_page_has_the_plots_that_its_reports_allow() {
        let figures = vec![
            Figure::new("server's CPU time", "per message", "µs", 20.0),
            Figure::new("server's CPU time", "by tern-worker", "µs", 15.0),
            Figure::new("disturbance", crate::scenario::OTHERS, "% of all cores", 7.0),
        ];
        let mut talk = stored("latency <1>", json!({"name": "latency"}), vec![figures]);
        let mut latency = Latency::default();
        (1..=1_000).for_each(|ms| latency.record(Duration::from_millis(ms)));
        let mut curves = Curves::default();
        curves.add("send to receive", latency);
        talk.curves = curves;
        let page = render(&[talk]).expect("it can be drawn");
        assert!(page.contains("latency &lt;1&gt;") && !page.contains("<1>"), "names are escaped");
        assert!(page.contains("up to 7 %"), "the disturbance is told");
        assert_eq!(page.matches("<svg").count(), 2, "a curve and a bar");
        for outside in ["http://", "https://", "url("] {
            let rest = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(outside), "the page needs nothing from elsewhere");
        }
    }
}
