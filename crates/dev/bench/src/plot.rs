//! Horizontal bars with whiskers, as SVG that is readable on light and on dark pages.

use std::fmt::Write as _;

use crate::spread::Spread;

const WIDTH: f64 = 800.0;
const MARGIN: f64 = 16.0;
/// Where bars begin: labels stand before it.
const LEFT: f64 = 216.0;
/// Where the longest whisker ends: its figures stand behind it.
const RIGHT: f64 = 616.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
/// Head of the whole, and of each panel: a title and a line below it.
const HEAD: f64 = 48.0;
const PANEL_HEAD: f64 = 30.0;
/// A bar longer than so many times the middle one would make the others too short to compare: it is cut off.
const LONGEST: f64 = 5.0;

/// It paints its own background, in the colours that the reader's system prefers, as a picture in a
/// page does not know the page's.
const STYLE: &str = "\
svg{--paper:#ffffff;--ink:#1f2328;--faint:#59636e;--line:#d1d9e0;--bar:#a9b4c2;--ours:#1a7f5a;--floor:#d8dee6}
@media(prefers-color-scheme:dark){svg{--paper:#0d1117;--ink:#f0f6fc;--faint:#9198a1;--line:#3d444d;--bar:#6b7685;--ours:#3fb68b;--floor:#3d444d}}
text{font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:var(--ink)}
.title{font-size:16px;font-weight:600}.panel{font-weight:600}.faint{fill:var(--faint)}.ours text{font-weight:600}
rect{fill:var(--bar)}.ours rect{fill:var(--ours)}.floor rect{fill:var(--floor)}.paper{fill:var(--paper);stroke:var(--line)}
path{stroke:var(--ink);stroke-width:1.3;fill:none}.axis{stroke:var(--line)}.cut{fill:var(--paper);stroke:none}";

/// Several panels below one another.
pub(crate) struct Chart {
    pub(crate) title: String,
    /// Below the title: what is better, and what whiskers are.
    pub(crate) note: String,
    pub(crate) panels: Vec<Panel>,
}

/// Bars with one scale, from 0.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) kind: Kind,
    /// Its text stands for the bar if there is none.
    pub(crate) spread: Result<Spread, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Floor,
    Other,
}

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let rows = |panel: &Panel| PANEL_HEAD + ROW * panel.bars.len() as f64;
        let height = MARGIN + HEAD + self.panels.iter().map(rows).sum::<f64>() + MARGIN;
        let mut svg = String::new();
        let mut top = MARGIN + HEAD;
        self.head(height, &mut svg)
            .and_then(|()| {
                for panel in &self.panels {
                    panel.draw(top, &mut svg)?;
                    top += rows(panel);
                }
                writeln!(svg, "</svg>")
            })
            .expect("a String takes all");
        svg
    }

    fn head(&self, height: f64, svg: &mut String) -> std::fmt::Result {
        let (title, note) = (escaped(&self.title), escaped(&self.note));
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n\
             <text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{title}</text>\n\
             <text class=\"faint\" x=\"{MARGIN}\" y=\"{}\">{note}</text>",
            WIDTH - 1.0,
            height - 1.0,
            MARGIN + 14.0,
            MARGIN + 34.0,
        )
    }
}

impl Panel {
    fn draw(&self, top: f64, svg: &mut String) -> std::fmt::Result {
        let scale = Scale::of(&self.bars);
        let title = escaped(&self.title);
        writeln!(
            svg,
            "<text class=\"panel\" x=\"{MARGIN}\" y=\"{}\">{title}</text>",
            top + 20.0
        )?;
        let top = top + PANEL_HEAD;
        for (index, bar) in self.bars.iter().enumerate() {
            bar.draw(scale, top + ROW * index as f64, svg)?;
        }
        let bottom = top + ROW * self.bars.len() as f64;
        writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {top}V{bottom}\"/>")
    }
}

impl Bar {
    fn draw(&self, scale: Scale, top: f64, svg: &mut String) -> std::fmt::Result {
        let class = match self.kind {
            Kind::Ours => "ours",
            Kind::Floor => "floor",
            Kind::Other => "other",
        };
        let middle = top + ROW / 2.0;
        let (text, label) = (middle + 4.5, escaped(&self.label));
        writeln!(
            svg,
            "<g class=\"{class}\"><text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{label}</text>",
            LEFT - 10.0
        )?;
        let spread = match &self.spread {
            Ok(spread) => spread,
            Err(why) => {
                let why = escaped(why);
                let x = LEFT + 8.0;
                return writeln!(
                    svg,
                    "<text class=\"faint\" x=\"{x}\" y=\"{text}\">{why}</text></g>"
                );
            }
        };
        let (from, to) = (scale.place(spread.least), scale.place(spread.most));
        let width = (scale.place(spread.median) - LEFT).max(1.0);
        let (bar, behind) = (middle - BAR / 2.0, to.max(LEFT + width) + 10.0);
        writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{bar:.1}\" width=\"{width:.1}\" height=\"{BAR}\"/>"
        )?;
        if scale.cuts(spread.median) {
            // A slanted gap: the bar is longer than it is drawn.
            let (x, y) = (RIGHT - 34.0, bar + BAR + 1.0);
            writeln!(svg, "<path class=\"cut\" d=\"M{x} {y}l6 -16h7l-6 16z\"/>")?;
        } else if to > from {
            writeln!(
                svg,
                "<path d=\"M{from:.1} {middle}H{to:.1}M{from:.1} {}v8M{to:.1} {}v8\"/>",
                middle - 4.0,
                middle - 4.0
            )?;
        }
        writeln!(
            svg,
            "<text x=\"{behind:.1}\" y=\"{text}\">{}</text></g>",
            spread.show()
        )
    }
}

/// From figures to places on the page.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scale {
    /// What reaches to [`RIGHT`].
    longest: f64,
}

impl Scale {
    fn of(bars: &[Bar]) -> Self {
        let spreads = || bars.iter().filter_map(|bar| bar.spread.as_ref().ok());
        let middle = Spread::of(spreads().map(|spread| spread.median));
        let limit = middle.map_or(1.0, |middle| middle.median * LONGEST);
        let most = spreads().map(|spread| spread.most).fold(0.0, f64::max);
        let longest = most.min(limit);
        Self {
            longest: if longest > 0.0 { longest } else { 1.0 },
        }
    }

    fn place(self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (value / self.longest).clamp(0.0, 1.0)
    }

    fn cuts(self, value: f64) -> bool {
        value > self.longest
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(least: f64, median: f64, most: f64) -> Bar {
        Bar {
            label: "a & <b>".to_owned(),
            kind: Kind::Other,
            spread: Ok(Spread {
                median,
                least,
                most,
            }),
        }
    }

    #[test]
    fn longest_whisker_ends_at_the_right() {
        let scale = Scale::of(&[bar(1.0, 2.0, 3.0), bar(2.0, 4.0, 8.0)]);
        let places = [0.0, 4.0, 8.0].map(|value| scale.place(value));
        assert_eq!(places, [LEFT, f64::midpoint(LEFT, RIGHT), RIGHT]);
        assert!(!scale.cuts(8.0));
    }

    #[test]
    fn one_long_bar_is_cut_and_the_others_stay_readable() {
        let mut bars = vec![bar(900.0, 1_000.0, 1_100.0)];
        bars.extend((0..4).map(|_| bar(1.0, 1.0, 1.0)));
        let scale = Scale::of(&bars);
        assert!(scale.cuts(1_000.0));
        assert!(!scale.cuts(1.0));
        assert_eq!(scale.place(1_000.0).to_bits(), RIGHT.to_bits());
        assert!(scale.place(1.0) - LEFT >= (RIGHT - LEFT) / LONGEST - 1e-9);
    }

    #[test]
    fn nothing_measured_still_has_a_scale() {
        let missing = Bar {
            spread: Err("not installed".to_owned()),
            ..bar(0.0, 0.0, 0.0)
        };
        assert_eq!(Scale::of(&[missing]), Scale { longest: 1.0 });
        assert_eq!(Scale::of(&[bar(0.0, 0.0, 0.0)]), Scale { longest: 1.0 });
    }

    #[test]
    fn every_bar_stands_in_the_picture_with_its_figures() {
        let missing = Bar {
            spread: Err("not installed".to_owned()),
            ..bar(0.0, 0.0, 0.0)
        };
        let panel = Panel {
            title: "1 < 2".to_owned(),
            bars: vec![bar(1.0, 2.0, 3.0), missing],
        };
        let chart = Chart {
            title: "CPU".to_owned(),
            note: String::new(),
            panels: vec![panel],
        };
        let svg = chart.svg();
        for part in ["a &amp; &lt;b&gt;", "2 (1–3)", "not installed", "1 &lt; 2"] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        // MARGIN + HEAD + PANEL_HEAD + 2 × ROW + MARGIN
        assert!(svg.contains("viewBox=\"0 0 800 158\""), "{svg}");
    }
}
