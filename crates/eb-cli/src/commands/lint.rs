//! `eb lint`

use eb_charter::{Charter, Violation};
use serde::Serialize;

use crate::args::schema::Lint;
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{self, Ui};

#[derive(Serialize)]
struct Summary {
    files: usize,
    violations: usize,
}

pub(crate) fn run(ui: &mut Ui, args: &Lint) -> Outcome {
    let charter = match &args.config {
        Some(config) => Charter::read(&args.path, config),
        None => Charter::find(&args.path),
    };
    let charter = charter.map_err(|e| Failure::failed("charter", e.to_string()))?;
    let report = charter.check().map_err(|e| Failure::failed("charter", e.to_string()))?;
    for violation in &report.violations {
        show(ui, violation)?;
    }
    let summary = Summary { files: report.files, violations: report.violations.len() };
    match report.violations.len() {
        0 => {
            let text = match report.files {
                0 => format!("eb: nothing to check in {}", args.path.display()),
                1 => "eb: 1 file keeps the charter".to_owned(),
                n => format!("eb: {} files keep the charter", ui::count(n as u64)),
            };
            ui.summary(&text, &summary);
            Ok(Exit::Done)
        }
        n => {
            let what = if n == 1 {
                "1 violation of the charter".to_owned()
            } else {
                format!("{n} violations of the charter")
            };
            let advice = "each line says what to do; an exception goes into charter.toml with its reason";
            Err(Failure::failed("charter", what)
                .advise(advice)
                .fact("violations", n)
                .fact("files", report.files))
        }
    }
}

fn show(ui: &mut Ui, violation: &Violation) -> Result<(), Failure> {
    if ui.is_json() {
        return ui.json(violation);
    }
    ui.line(&ui::visible(&violation.to_string()))
}
