//! What the MPI launcher told this process through its environment, before `MPI_Init`.
//!
//! Used for two things only: rank 0 has to be known early (it starts the gateway), and the size that the launcher
//! announced has to equal the world that MPI then delivers.

use std::env;

/// A launcher's variables for one process.
struct Family {
    /// How a user knows it.
    name: &'static str,
    rank: &'static str,
    size: &'static str,
}

/// In this order: Open MPI sets PMIX variables too, and a PMIx launcher may be used by any MPI.
const FAMILIES: [Family; 5] = [
    Family {
        name: "Open MPI's mpiexec",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
    },
    Family {
        name: "PALS",
        rank: "PALS_RANKID",
        size: "PALS_SIZE",
    },
    Family {
        name: "a PMI launcher (MPICH's or Intel's mpiexec)",
        rank: "PMI_RANK",
        size: "PMI_SIZE",
    },
    Family {
        name: "a PMIx launcher",
        rank: "PMIX_RANK",
        size: "PMIX_SIZE",
    },
    Family {
        name: "Slurm's srun",
        rank: "SLURM_PROCID",
        size: "SLURM_STEP_NUM_TASKS",
    },
];

/// Variables with these prefixes would make a child believe that it is a rank.
const RANK_PREFIXES: [&str; 7] = ["OMPI_", "PMI_", "PMIX_", "PALS_", "HYD", "MPIR_", "MPI_LOCAL"];

/// What the launcher said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Which launcher it was.
    pub by: &'static str,
    /// Rank in the world.
    pub rank: u32,
    /// Size of the world, where the launcher tells it.
    pub size: Option<u32>,
}

impl Launched {
    /// Reads the environment; `None` without a launcher, which makes a world of one.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        Self::from_lookup(|name| env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| lookup(name).and_then(|text| text.trim().parse::<u32>().ok());
        FAMILIES.iter().find_map(|family| {
            // Every process of a batch step inherits SLURM_PROCID=0; only srun's tasks have a step that is not "batch".
            if family.rank == "SLURM_PROCID" && !under_srun(&lookup) {
                return None;
            }
            number(family.rank).map(|rank| Self {
                by: family.name,
                rank,
                size: number(family.size),
            })
        })
    }
}

fn under_srun(lookup: &impl Fn(&str) -> Option<String>) -> bool {
    // Slurm numbers the batch script's step 4294967291 (SLURM_BATCH_SCRIPT); srun's steps count from 0.
    lookup("SLURM_STEP_ID")
        .and_then(|step| step.parse::<u64>().ok())
        .is_some_and(|step| step < 0xffff_fff0)
        && lookup("SLURM_STEP_NUM_TASKS").is_some()
}

/// Whether a child process must not inherit this variable.
#[must_use]
pub fn marks_a_rank(variable: &str) -> bool {
    RANK_PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
        && !variable.starts_with("OMPI_ALLOW_RUN_AS_ROOT")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn launched(variables: &[(&str, &str)]) -> Option<Launched> {
        let table: HashMap<&str, &str> = variables.iter().copied().collect();
        Launched::from_lookup(|name| table.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn open_mpi_comes_before_its_own_pmix_variables() {
        let found = launched(&[
            ("PMIX_RANK", "3"),
            ("OMPI_COMM_WORLD_RANK", "2"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
        ]);
        assert_eq!(found.map(|l| (l.rank, l.size)), Some((2, Some(4))));
    }

    #[test]
    fn the_batch_step_is_no_rank() {
        let batch = [
            ("SLURM_PROCID", "0"),
            ("SLURM_STEP_ID", "4294967291"),
            ("SLURM_STEP_NUM_TASKS", "1"),
        ];
        assert_eq!(launched(&batch), None);
        let step = [
            ("SLURM_PROCID", "1"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NUM_TASKS", "2"),
        ];
        assert_eq!(launched(&step).map(|l| l.rank), Some(1));
    }

    #[test]
    fn no_launcher_is_no_rank() {
        assert_eq!(launched(&[]), None);
    }

    #[test]
    fn rank_variables_are_dropped_and_permissions_kept() {
        assert!(marks_a_rank("OMPI_COMM_WORLD_RANK") && marks_a_rank("HYDI_CONTROL_FD"));
        assert!(!marks_a_rank("OMPI_ALLOW_RUN_AS_ROOT") && !marks_a_rank("PATH"));
    }
}
