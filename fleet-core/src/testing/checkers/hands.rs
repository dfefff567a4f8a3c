//! What somebody else's moves touched: what touched one thing excuses nothing else.

use super::super::machine::ForeignMove;

/// What moves of somebody else touched, as far as fleet need not answer for it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hands {
    /// Whether something runs, and since when.
    pub(super) ran: bool,
    /// The data: a container ran that fleet did not start.
    pub(super) wrote: bool,
    /// Containers that are gone, and with them who has the instance's name.
    pub(super) removed: bool,
    /// Containers, names and volumes that fleet did not make.
    pub(super) made: bool,
    /// The name of a container.
    pub(super) renamed: bool,
}

impl Hands {
    /// Adds a move that changed something.
    pub(super) fn add(&mut self, what: &ForeignMove) {
        match what {
            ForeignMove::Stop(_) => self.ran = true,
            ForeignMove::Start(_) => {
                self.ran = true;
                self.wrote = true;
            }
            ForeignMove::Remove(_) => {
                self.ran = true;
                self.removed = true;
            }
            ForeignMove::Rename(..) => self.renamed = true,
            ForeignMove::Recreate(_) => {
                self.ran = true;
                self.wrote = true;
                self.removed = true;
                self.made = true;
            }
            ForeignMove::TakeName(_) => self.made = true,
        }
    }
}
