//! The common parts of drawings: a frame with labelled axes.

use std::fmt::Write;

/// The positions of the parts of a drawing, in its units.
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// A label on an axis: its position, from 0 to 1, and its text.
pub(crate) type Tick = (f64, String);

/// A text as a drawing may contain it. Characters that XML does not allow are left out.
/// <https://www.w3.org/TR/xml/#charsets>
pub(crate) fn escaped(text: &str) -> String {
    let is_none = |c: char| matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}');
    text.replace(is_none, "")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Frame {
    /// The beginning of a drawing: its title, a frame, the ticks of both axes, and the names of the
    /// axes. `contents` and `</svg>` follow.
    pub(crate) fn begin(&self, title: &str, x: (&str, &[Tick]), y: (&str, &[Tick])) -> String {
        let Self { left, top, width, height } = *self;
        let (right, bottom) = (left + width, top + height);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"22\" font-size=\"14\">{}</text>\n\
             <rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#888\"/>\n",
            right + 30.0,
            bottom + 50.0,
            escaped(title),
        );
        // Writing to a String does not fail.
        for (at, label) in x.1 {
            let at = left + at * width;
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escaped(label)
            );
        }
        for (at, label) in y.1 {
            let at = bottom - at * height;
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                at + 4.0,
                escaped(label)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            left + width / 2.0,
            bottom + 38.0,
            escaped(x.0)
        );
        let middle = top + height / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {middle:.1})\">{}</text>",
            escaped(y.0)
        );
        svg
    }
}

/// Round numbers from 0 to a little beyond `most`, about five of them, and the last one.
pub(crate) fn round_numbers(most: f64) -> (Vec<f64>, f64) {
    let rough = (most / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let count = (most / step).ceil().max(1.0);
    ((0..=count as usize).map(|n| n as f64 * step).collect(), count * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_round_numbers() {
        assert_eq!(round_numbers(9.0), (vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0], 10.0));
        assert_eq!((round_numbers(1.0).0.len(), round_numbers(1.0).1), (6, 1.0));
        assert_eq!(round_numbers(0.0).0.len(), 2);
        assert_eq!(round_numbers(1234.0).1, 1500.0);
    }

    #[test]
    fn a_text_is_no_markup() {
        assert_eq!(escaped("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
        assert_eq!(
            escaped("a\0\u{1b}b\t\u{fffd}\u{fffe}\u{ffff}\u{1f600}"),
            "ab\t\u{fffd}\u{1f600}"
        );
    }
}
