//! `eb completions` and `eb man`

use std::path::Path;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::failure::{Exit, Failure, Outcome};
use crate::ui::Ui;

pub(crate) fn completions(ui: &mut Ui, shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "eb", &mut script);
    ui.bytes(&script)?;
    Ok(Exit::Done)
}

pub(crate) fn man(ui: &mut Ui, dir: Option<&Path>) -> Outcome {
    match dir {
        Some(dir) => {
            let cannot =
                |e| Failure::failed("io", format!("cannot write manual pages to {}: {e}", dir.display()));
            std::fs::create_dir_all(dir).map_err(cannot)?;
            clap_mangen::generate_to(Cli::command(), dir).map_err(cannot)?;
            ui.note(&format!("wrote the manual pages to {}", dir.display()));
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|e| Failure::output(&e))?;
            ui.bytes(&page)?;
        }
    }
    Ok(Exit::Done)
}
