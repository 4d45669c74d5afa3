//! Whoever is no backend may know them all.

use bus_a::A;
use bus_b::B;
