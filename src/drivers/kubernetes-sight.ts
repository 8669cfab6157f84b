/** Who of those that hold Leases lives, for all that we have seen of them. */
import type { Pace } from './kubernetes-lease.ts';
import type { Lease } from './kubernetes-objects.ts';

/** One holder, as far as one can tell; `lost`: its Lease stood still for its whole term while we looked. */
export type Sight = 'lost' | 'alive' | 'undecided';

type Sighting = { readonly pulse: string; readonly stillMs: number; readonly hasMoved: boolean };

/**
 * A pair of eyes: takes in one list of Leases after the other, and says of each what it thinks. Of the time between two
 * lists no more than one renewal's counts: while the API was away, or we stood still ourselves, nobody could renew.
 */
export function openEyes({ durationMs, renewMs }: Pace): (leases: readonly Lease[]) => (lease: Lease) => Sight {
  let sightings = new Map<string, Sighting>();
  let lookedAtMs = performance.now();
  return (leases) => {
    const nowMs = performance.now();
    const passedMs = Math.min(nowMs - lookedAtMs, renewMs);
    lookedAtMs = nowMs;
    const before = sightings;
    sightings = new Map(
      leases.map((lease) => {
        const seen = before.get(uidOf(lease));
        const pulse = pulseOf(lease);
        if (seen === undefined) return [uidOf(lease), { pulse, stillMs: 0, hasMoved: false }];
        if (seen.pulse !== pulse) return [uidOf(lease), { pulse, stillMs: 0, hasMoved: true }];
        return [uidOf(lease), { ...seen, stillMs: seen.stillMs + passedMs }];
      }),
    );
    return (lease) => {
      const { stillMs = 0, hasMoved = false } = sightings.get(uidOf(lease)) ?? {};
      const termMs = Math.min((lease.spec?.leaseDurationSeconds ?? 60) * 1000, durationMs);
      if (stillMs >= termMs) return 'lost';
      return hasMoved ? 'alive' : 'undecided';
    };
  };
}

function uidOf({ metadata }: Lease): string {
  return metadata.uid ?? metadata.name;
}

function pulseOf({ spec }: Lease): string {
  return `${spec?.holderIdentity} ${spec?.renewTime}`;
}
