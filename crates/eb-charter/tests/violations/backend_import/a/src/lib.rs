//! A backend that knows others.

use bus_a::myself;
use bus_b::offsets as theirs; //~ backend-import
use eb_contract::Topic;

fn borrowed() {
    let _ = bus_c::anything(); //~ backend-import
    let _ = helper::anything(); //~ backend-import
    let bus_b = 1;
}
