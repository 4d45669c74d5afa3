//! `eb health`

use ig_gate::HealthStatus;

use crate::args::Global;
use crate::commands::{open, open_gate};
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::{self, Ui};

pub(crate) async fn run(ui: &mut Ui, global: &Global) -> Outcome {
    let platform = open(ui, global).await?;
    let health = open_gate(ui, &platform).await?.health().await;
    let closed = platform.close().await;
    if ui.is_json() {
        ui.json(&health)?;
    } else {
        let rows: Vec<_> = health
            .checks
            .iter()
            .map(|c| vec![c.name.clone(), c.status.to_string(), c.detail.clone()])
            .collect();
        ui.table(&["CHECK", "STATUS", "DETAIL"], &rows)?;
        let style = match health.status {
            HealthStatus::Ready => ui::GOOD,
            HealthStatus::Degraded => ui::WARN,
            HealthStatus::Failing => ui::BAD,
        };
        let status = ui.style(style, &health.status.to_string());
        ui.line(&status)?;
    }
    ui.flush()?;
    closed?;
    match health.status {
        HealthStatus::Ready | HealthStatus::Degraded => Ok(Exit::Done),
        HealthStatus::Failing => {
            Err(Failure::failed("failing", "the gate does not admit")
                .advise("see the checks that are failing"))
        }
    }
}
