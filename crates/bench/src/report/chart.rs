//! Charts of horizontal bars in SVG, one group of bars under each other per case.
//!
//! They are looked at in pages of either kind, light or dark: nothing is painted behind them, the colours of bars are readable on both, and
//! text follows what the reader prefers, by a style sheet that is put into what plotters draws.

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::combinators::IntoLogRange as _;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::{DrawingArea, IntoDrawingArea as _};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color as _, IntoTextStyle as _, RGBColor, TextStyle};

use super::figure;
use crate::Outcome;

/// Pixels.
const WIDTH: u32 = 900;
const MARGIN: i32 = 10;
/// For the figure of the longest bar.
const FIGURES_WIDTH: i32 = 70;
const TITLE_HEIGHT: i32 = 28;
const LEGEND_HEIGHT: i32 = 24;
const AXIS_HEIGHT: i32 = 52;
const BAR_HEIGHT: i32 = 17;
/// Between groups, in parts of a bar.
const GAP: f64 = 0.7;
const FONT: &str = "sans-serif";
/// plotters makes the letters a fifth smaller than these.
const FONT_SIZE: i32 = 16;
const TITLE_SIZE: i32 = 20;
/// About how wide a letter is, on the wide side: room for texts is kept by it.
const LETTER_WIDTH: i32 = 7;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x4c, 0x78, 0xa8),
    RGBColor(0xf5, 0x85, 0x18),
    RGBColor(0x54, 0xa2, 0x4b),
    RGBColor(0xb2, 0x79, 0xa2),
    RGBColor(0x9d, 0x75, 0x5d),
    RGBColor(0x72, 0xb7, 0xb2),
];
const GOAL_COLOUR: RGBColor = RGBColor(0xe4, 0x57, 0x56);
const LINE_COLOUR: RGBColor = RGBColor(0x88, 0x88, 0x88);

const STYLE: &str = "<style>text{fill:#1f2328}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>";

/// How figures are laid on the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten, for figures that differ by more than a reader could see otherwise.
    Log,
}

/// Bars of one case, one per series.
#[derive(Clone, Debug)]
pub struct Group {
    /// Which case.
    pub label: String,
    /// As many as there are series; `None` where a series has no figure for the case.
    pub values: Vec<Option<f64>>,
    /// Where the line of the goal is, if there is one for this case.
    pub goal: Option<f64>,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What its file is called behind the suite's name; empty for the only or the first one.
    pub name: &'static str,
    /// What stands above it.
    pub title: String,
    /// What the axis shows, with its unit.
    pub axis: &'static str,
    /// How figures are laid on the axis.
    pub scale: Scale,
    /// What each bar of a group is.
    pub series: Vec<String>,
    /// The cases.
    pub groups: Vec<Group>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Chart {
    /// The name of its file.
    pub(super) fn file(&self, suite: &str) -> String {
        if self.name.is_empty() { format!("{suite}.svg") } else { format!("{suite}-{}.svg", self.name) }
    }

    /// Draws it.
    ///
    /// # Errors
    /// There is nothing to draw. Single figures that have no place on the axis have no bar.
    pub(super) fn svg(&self) -> Outcome<String> {
        let (least, most) = self.extent()?;
        let rows = self.rows();
        let height = TITLE_HEIGHT + LEGEND_HEIGHT + AXIS_HEIGHT + MARGIN + (rows * f64::from(BAR_HEIGHT)) as i32;
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, height.unsigned_abs())).into_drawing_area();
            area.draw(&Text::new(self.title.as_str(), (MARGIN, 6), style(TITLE_SIZE, HPos::Left, VPos::Top)))
                .map_err(text)?;
            self.draw_legend(&area)?;
            let plot = area.margin(TITLE_HEIGHT + LEGEND_HEIGHT, 0, self.labels_width(), FIGURES_WIDTH);
            let mut builder = ChartBuilder::on(&plot);
            builder.x_label_area_size(AXIS_HEIGHT);
            // From top to bottom.
            let rows = rows..0.0;
            match self.scale {
                Scale::Linear => {
                    self.draw(&area, builder.build_cartesian_2d(0.0..most, rows).map_err(text)?, 0.0)?;
                }
                Scale::Log => {
                    let least = 10_f64.powf(least.log10().floor());
                    let most = 10_f64.powf(most.log10().ceil()).max(least * 10.0);
                    let chart = builder.build_cartesian_2d((least..most).log_scale(), rows).map_err(text)?;
                    self.draw(&area, chart, least)?;
                }
            }
            area.present().map_err(text)?;
        }
        let (head, body) = svg.split_once('\n').ok_or("plotters wrote no lines")?;
        Ok(format!("{head}\n{STYLE}\n{body}"))
    }

    /// The least and the largest figure, goals included.
    fn extent(&self) -> Outcome<(f64, f64)> {
        let figures = self.groups.iter().flat_map(|group| group.values.iter().copied().chain([group.goal])).flatten();
        let (least, most) = figures
            .filter(|figure| self.is_drawable(*figure))
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), figure| (least.min(figure), most.max(figure)));
        if most <= 0.0 {
            return Err(format!("the chart \"{}\" has no figure that can be drawn", self.title).into());
        }
        Ok((least, most))
    }

    /// A ratio to nothing is no number, and a logarithmic scale has no place for zero.
    fn is_drawable(&self, figure: f64) -> bool {
        figure.is_finite() && figure >= 0.0 && (figure > 0.0 || self.scale == Scale::Linear)
    }

    /// Its height in bars.
    fn rows(&self) -> f64 {
        self.groups.len() as f64 * (self.series.len() as f64 + GAP)
    }

    /// Room for the longest label.
    fn labels_width(&self) -> i32 {
        let letters = self.groups.iter().map(|group| group.label.chars().count()).max().unwrap_or_default();
        LETTER_WIDTH * i32::try_from(letters).unwrap_or_default() + 2 * MARGIN
    }

    fn draw_legend(&self, area: &Area<'_>) -> Outcome {
        let goal = self.groups.iter().any(|group| group.goal.is_some()).then(|| ("goal".to_owned(), GOAL_COLOUR));
        let series = self.series.iter().cloned().zip(COLOURS.into_iter().cycle());
        let mut left = self.labels_width();
        let (top, bottom) = (TITLE_HEIGHT + 4, TITLE_HEIGHT + 14);
        for (name, colour) in series.chain(goal) {
            area.draw(&Rectangle::new([(left, top), (left + 10, bottom)], colour.filled())).map_err(text)?;
            let width = LETTER_WIDTH * i32::try_from(name.chars().count())?;
            area.draw(&Text::new(name, (left + 15, top + 5), style(FONT_SIZE, HPos::Left, VPos::Center)))
                .map_err(text)?;
            left += 15 + width + 15;
        }
        Ok(())
    }

    fn draw<X>(
        &self,
        area: &Area<'_>,
        mut chart: ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, RangedCoordf64>>,
        from: f64,
    ) -> Outcome
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(self.axis)
            .x_labels(8)
            .x_label_formatter(&|figure| short(*figure))
            .axis_style(LINE_COLOUR)
            .bold_line_style(LINE_COLOUR.mix(0.35))
            .light_line_style(LINE_COLOUR.mix(0.0))
            .label_style((FONT, FONT_SIZE))
            .axis_desc_style((FONT, FONT_SIZE))
            .draw()
            .map_err(text)?;
        self.draw_bars(area, chart.plotting_area(), from)
    }

    /// Bars, the goals above them, and figures above both.
    fn draw_bars<X: Ranged<ValueType = f64>>(
        &self,
        area: &Area<'_>,
        plot: &DrawingArea<SVGBackend<'_>, Cartesian2d<X, RangedCoordf64>>,
        from: f64,
    ) -> Outcome {
        let height = self.series.len() as f64;
        let mut figures = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            let top = number as f64 * (height + GAP) + GAP / 2.0;
            let (_, middle) = plot.map_coordinate(&(from, top + height / 2.0));
            let label = style(FONT_SIZE, HPos::Right, VPos::Center);
            area.draw(&Text::new(group.label.as_str(), (self.labels_width() - MARGIN, middle), label)).map_err(text)?;
            for (row, (value, colour)) in group.values.iter().zip(COLOURS.into_iter().cycle()).enumerate() {
                let Some(value) = value.filter(|value| self.is_drawable(*value)) else { continue };
                let at = top + row as f64;
                plot.draw(&Rectangle::new([(from, at + 0.1), (value, at + 0.9)], colour.filled())).map_err(text)?;
                let (right, middle) = plot.map_coordinate(&(value, at + 0.5));
                let label = style(FONT_SIZE - 2, HPos::Left, VPos::Center);
                figures.push(Text::new(figure(value), (right + 4, middle), label));
            }
            if let Some(goal) = group.goal {
                let line = [(goal, top - GAP / 2.0), (goal, top + height + GAP / 2.0)];
                plot.draw(&PathElement::new(line, GOAL_COLOUR.stroke_width(2))).map_err(text)?;
            }
        }
        figures.iter().try_for_each(|figure| area.draw(figure)).map_err(text)?;
        Ok(())
    }
}

fn style(size: i32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    (FONT, size, &BLACK).into_text_style(&(0, 0)).pos(Pos::new(horizontal, vertical))
}

/// A figure at the axis.
fn short(figure: f64) -> String {
    let (figure, unit) = match figure.abs() {
        1e6.. => (figure / 1e6, "M"),
        1e3.. => (figure / 1e3, "k"),
        _ => (figure, ""),
    };
    // Steps of the axis are round: what is behind the third place is the noise of their sums.
    let digits = format!("{figure:.3}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// What plotters reports holds references to what it draws on.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::{Chart, Group, Scale, short};

    fn chart(scale: Scale) -> Chart {
        let group = |label: &str, values, goal| Group { label: label.to_owned(), values, goal };
        Chart {
            name: "",
            title: "Reads & writes".to_owned(),
            axis: "time relative to DashMap",
            scale,
            series: vec!["store".to_owned(), "moka".to_owned()],
            groups: vec![
                group("get", vec![Some(1.61), Some(2.18)], Some(2.0)),
                group("put", vec![Some(1_650.0), None], None),
            ],
        }
    }

    #[test]
    fn bars_figures_labels_and_goals_are_drawn_and_text_follows_the_reader() {
        for scale in [Scale::Linear, Scale::Log] {
            let svg = chart(scale).svg().unwrap();
            assert!(svg.starts_with("<svg "), "{svg}");
            assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("prefers-color-scheme:dark"));
            for text in
                ["Reads &amp; writes", "get", "put", "1.61", "2.18", "1,650", "time relative to DashMap", "goal"]
            {
                assert!(svg.contains(text), "{text} is not in {svg}");
            }
            // Three bars, and three places of the legend.
            assert_eq!(svg.matches("<rect ").count(), 6, "{svg}");
        }
    }

    #[test]
    fn figures_that_no_axis_can_hold_have_no_bar() {
        let mut odd = chart(Scale::Log);
        odd.groups[0].values = vec![Some(0.0), Some(f64::NAN)];
        // One bar, and three places of the legend.
        assert_eq!(odd.svg().unwrap().matches("<rect ").count(), 4);
        odd.scale = Scale::Linear;
        assert_eq!(odd.svg().unwrap().matches("<rect ").count(), 5, "zero has a place on a linear scale");
        odd.groups.truncate(1);
        odd.groups[0].goal = None;
        assert!(odd.svg().unwrap_err().to_string().contains("Reads & writes"));
    }

    #[test]
    fn files_are_named_after_the_suite() {
        let mut chart = chart(Scale::Linear);
        assert_eq!(chart.file("engine"), "engine.svg");
        chart.name = "pauses";
        assert_eq!(chart.file("engine"), "engine-pauses.svg");
    }

    #[test]
    fn figures_at_the_axis_are_short() {
        assert_eq!([0.0, 0.1, 2.0, 1_000.0, 250_000.0, 2e6].map(short), ["0", "0.1", "2", "1k", "250k", "2M"]);
        assert_eq!(short(0.300_000_000_000_000_04), "0.3");
    }
}
