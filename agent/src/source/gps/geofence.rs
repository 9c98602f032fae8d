//! Geofences: whether a position is inside, with hysteresis. Pure.
//!
//! A fence is entered at its border and left only so many metres outside of it, so that a position that trembles on the border does not
//! enter and leave again and again. Distances are on a sphere: half a per cent off at the most, far less than a receiver is at times.

use super::fix::Position;

/// Mean radius of the earth in metres.
const EARTH_METRES: f64 = 6_371_008.8;

/// An area with a name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Geofence {
    pub(super) name: String,
    pub(super) area: Area,
    /// How far outside it is left, in metres.
    pub(super) hysteresis: f64,
}

/// What it covers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Area {
    /// Radius in metres.
    Circle { centre: Position, radius: f64 },
    /// At least three corners; the last is joined to the first. Not to contain a pole.
    Polygon(Vec<Position>),
}

/// What a position did to a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crossing {
    Entered,
    Left,
}

impl Geofence {
    /// What a position means to somebody who was inside, or was not, or of whom nothing is known: who is inside then, has entered.
    pub(super) fn crossing(&self, was_inside: Option<bool>, position: Position) -> (bool, Option<Crossing>) {
        let outside_by = self.area.metres_outside(position);
        match was_inside {
            Some(true) if outside_by > self.hysteresis => (false, Some(Crossing::Left)),
            Some(true) => (true, None),
            Some(false) | None if outside_by <= 0.0 => (true, Some(Crossing::Entered)),
            Some(false) | None => (false, None),
        }
    }
}

impl Area {
    /// Distance from its border, in metres; not above 0 inside.
    fn metres_outside(&self, position: Position) -> f64 {
        match self {
            Self::Circle { centre, radius } => distance(*centre, position) - radius,
            Self::Polygon(corners) => {
                let corners: Vec<_> = corners.iter().map(|corner| seen_from(position, *corner)).collect();
                let edges = || corners.iter().zip(corners.iter().cycle().skip(1));
                let crossed = edges().filter(|(from, to)| crosses_east(**from, **to)).count();
                if crossed % 2 == 1 {
                    return 0.0;
                }
                edges().map(|(from, to)| metres_to_edge(*from, *to)).fold(f64::INFINITY, f64::min)
            }
        }
    }
}

/// Metres between two positions, by the haversine formula.
pub(super) fn distance(one: Position, other: Position) -> f64 {
    let (lat1, lat2) = (one.latitude.to_radians(), other.latitude.to_radians());
    let half = |from: f64, to: f64| ((to - from) / 2.0).sin().powi(2);
    let a = half(lat1, lat2) + lat1.cos() * lat2.cos() * half(one.longitude.to_radians(), other.longitude.to_radians());
    2.0 * EARTH_METRES * a.sqrt().min(1.0).asin()
}

/// Metres to the east and to the north, as on a flat map around the one who looks; over the date line the short way.
fn seen_from(here: Position, there: Position) -> (f64, f64) {
    let east = (there.longitude - here.longitude + 540.0).rem_euclid(360.0) - 180.0;
    let north = there.latitude - here.latitude;
    let metres = |degrees: f64| degrees.to_radians() * EARTH_METRES;
    // In the middle between the two, so that far edges are not bent too much.
    let scale = here.latitude.midpoint(there.latitude).to_radians().cos();
    (metres(east) * scale, metres(north))
}

/// Whether the ray from the origin to the east crosses the edge.
fn crosses_east((x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> bool {
    (y1 > 0.0) != (y2 > 0.0) && x1 + (x2 - x1) * (-y1 / (y2 - y1)) > 0.0
}

/// From the origin.
fn metres_to_edge((x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> f64 {
    let (dx, dy) = (x2 - x1, y2 - y1);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 { (-(x1 * dx + y1 * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
    (x1 + along * dx).hypot(y1 + along * dy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(latitude: f64, longitude: f64) -> Position {
        Position::new(latitude, longitude).expect("a position")
    }

    fn circle(radius: f64) -> Geofence {
        Geofence { name: "depot".into(), area: Area::Circle { centre: at(52.52, 13.405), radius }, hysteresis: 20.0 }
    }

    #[test]
    fn distances_are_those_of_the_earth() {
        // Berlin to Munich, and once around the date line.
        assert!((distance(at(52.52, 13.405), at(48.137, 11.575)) - 504_300.0).abs() < 500.0);
        assert!((distance(at(0.0, 179.5), at(0.0, -179.5)) - 111_195.0).abs() < 10.0);
        assert!((distance(at(90.0, 0.0), at(-90.0, 0.0)) - 20_015_115.0).abs() < 10.0);
    }

    #[test]
    fn a_fence_is_left_behind_its_border() {
        let fence = circle(100.0);
        // A metre is 0.000009 degrees to the north.
        let metres_north = |metres: f64| at(52.52 + metres * 0.000_008_993, 13.405);
        assert_eq!(fence.crossing(None, metres_north(0.0)), (true, Some(Crossing::Entered)));
        assert_eq!(fence.crossing(None, metres_north(101.0)), (false, None));
        assert_eq!(fence.crossing(Some(true), metres_north(119.0)), (true, None));
        assert_eq!(fence.crossing(Some(true), metres_north(121.0)), (false, Some(Crossing::Left)));
        assert_eq!(fence.crossing(Some(false), metres_north(119.0)), (false, None));
        assert_eq!(fence.crossing(Some(false), metres_north(99.0)), (true, Some(Crossing::Entered)));
    }

    #[test]
    fn polygons_may_be_hollow_and_lie_on_the_date_line() {
        // A U that is open to the north.
        let u = Area::Polygon(
            [(0.0, 0.0), (0.0, 3.0), (3.0, 3.0), (3.0, 2.0), (1.0, 2.0), (1.0, 1.0), (3.0, 1.0), (3.0, 0.0)]
                .map(|(latitude, longitude)| at(latitude, longitude))
                .to_vec(),
        );
        assert!(u.metres_outside(at(0.5, 1.5)) <= 0.0 && u.metres_outside(at(2.0, 0.5)) <= 0.0);
        assert!((u.metres_outside(at(2.0, 1.5)) - 55_600.0).abs() < 600.0);
        let fiji = Area::Polygon(
            [(-16.0, 179.0), (-16.0, -179.0), (-18.0, -179.0), (-18.0, 179.0)].map(|(a, b)| at(a, b)).to_vec(),
        );
        assert!(fiji.metres_outside(at(-17.0, 179.9)) <= 0.0 && fiji.metres_outside(at(-17.0, -179.9)) <= 0.0);
        assert!(fiji.metres_outside(at(-17.0, 178.9)) > 10_000.0);
    }

    proptest! {
        /// Whoever walks at random is inside and outside in turns, and trembling within the hysteresis says nothing.
        #[test]
        fn crossings_alternate(radius in 10.0..500.0_f64, steps in prop::collection::vec((-600.0..600.0_f64, -600.0..600.0_f64), 1..60)) {
            let fence = circle(radius);
            let mut inside = None;
            let mut last = None;
            for (north, east) in steps {
                let position = at(52.52 + north * 0.000_008_993, 13.405 + east * 0.000_014_8);
                let (now, crossing) = fence.crossing(inside, position);
                prop_assert_eq!(crossing.is_some(), inside.unwrap_or(false) != now);
                if crossing.is_some() {
                    prop_assert_ne!(crossing, last);
                    last = crossing;
                }
                let away = distance(at(52.52, 13.405), position);
                let fits = if now { away <= radius + 20.0 } else { away > radius };
                prop_assert!(fits);
                inside = Some(now);
            }
        }

        #[test]
        fn nothing_panics_anywhere(corners in prop::collection::vec((-90.0..=90.0_f64, -180.0..=180.0_f64), 3..8), lat in -90.0..=90.0_f64, lon in -180.0..=180.0_f64) {
            let corners = corners.into_iter().map(|(latitude, longitude)| at(latitude, longitude)).collect();
            prop_assert!(!Area::Polygon(corners).metres_outside(at(lat, lon)).is_nan());
        }
    }
}
