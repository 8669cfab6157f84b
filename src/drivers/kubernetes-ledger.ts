/** `Driver.ledger`: a Lease for each job's open run, renewed while its sidecar lives. */
import { OperationalError } from '../core/errors.ts';
import type { Ledger, Lost, LostRun } from '../core/ledger.ts';
import type { Log } from '../core/ports.ts';
import type { Api } from './kubernetes-api.ts';
import { refuseConflicts } from './kubernetes-conflict.ts';
import { forgetReleased } from './kubernetes-hold.ts';
import {
  createLease,
  deleteLease,
  getLease,
  type LeaseKind,
  leaseName,
  listLeases,
  type Pace,
  untilUndisturbed,
  updateLease,
} from './kubernetes-lease.ts';
import type { Lease } from './kubernetes-objects.ts';
import { getController } from './kubernetes-pods.ts';
import { progressOf, readRecord, recordOf, writeRecord } from './kubernetes-record.ts';
import { openEyes } from './kubernetes-sight.ts';
import { type HoldLease, holdIn, isOrphan, readHoldLease, type Sharer, writeHoldLease } from './kubernetes-workload.ts';

/** Where it is kept, and by whom. */
export type LedgerOptions = {
  readonly api: Api;
  readonly log: Log | undefined;
  readonly identity: () => string;
  readonly pace: Pace;
};

export type OpenLedger = Ledger & { sharersOf(key: string): readonly Sharer[] };

export function makeLedger({ api, log, identity, pace }: LedgerOptions): OpenLedger {
  const open = new Map<string, LostRun>();
  const look = openEyes(pace);
  const content = {
    pace,
    get holder(): string {
      return identity();
    },
  };

  /** The Lease of a run, whichever kind it is by now. */
  const find = async (runId: string, job: string | undefined, signal: AbortSignal): Promise<Lease | undefined> => {
    const names = [...(job === undefined ? [] : [leaseName('job', job)]), leaseName('kept', runId)];
    for (const name of names) {
      const lease = await getLease(api, name, signal);
      if (lease !== undefined && readRecord(lease)?.run.id === runId) return lease;
    }
    if (job !== undefined) return undefined;
    return (await listLeases(api, signal)).find((lease) => readRecord(lease)?.run.id === runId);
  };
  const isOurs = ({ spec }: Lease): boolean => spec?.holderIdentity === identity();
  async function write(record: LostRun, signal: AbortSignal): Promise<void> {
    const { run } = record;
    const annotations = writeRecord(record);
    await untilUndisturbed(`write down run ${run.id}`, async () => {
      const lease = await find(run.id, run.job, signal);
      if (lease === undefined || !isOurs(lease)) {
        const by = lease === undefined ? 'and has been finished' : `by ${lease.spec?.holderIdentity}`;
        throw new OperationalError('not-trusted', `run ${run.id}: it was taken over, ${by}`);
      }
      if (run.phase !== 'kept' || lease.metadata.name === leaseName('kept', run.id)) {
        return updateLease(api, lease, { ...content, annotations }, signal);
      }
      // What a failed restore keeps is out of its job's way.
      const name = leaseName('kept', run.id);
      const kept =
        (await createLease(api, name, { kind: 'kept', ...content, annotations }, signal)) ??
        (await getLease(api, name, signal));
      return (await deleteLease(api, lease, signal)) ? kept : undefined;
    });
    open.set(run.id, record);
  }

  return {
    paceMs: pace.renewMs,
    sharersOf: (key) =>
      [...open.values()]
        .filter(({ claims }) => claims.some((claim) => claim.key === key && claim.use === 'hold'))
        .map(({ run }) => ({ run: run.id, job: run.job, holder: identity() })),
    async open(run, plan, signal) {
      const record = recordOf(run, plan);
      const name = leaseName('job', run.job);
      const annotations = writeRecord(record);
      let lease: Lease | undefined;
      open.set(run.id, record); // before `tend` can see it, and take it for a lost one
      try {
        lease = await createLease(api, name, { kind: 'job', ...content, annotations }, signal);
        if (lease !== undefined) {
          refuseConflicts(
            record,
            (await listLeases(api, signal)).filter((one) => !isOurs(one)),
          );
          return await inherit(run, signal);
        }
        const holder = (await getLease(api, name, signal))?.spec?.holderIdentity;
        throw new OperationalError('busy', `not now: job ${run.job} has a run open at ${holder ?? 'another sidehook'}`);
      } catch (error) {
        open.delete(run.id);
        const soon = AbortSignal.timeout(pace.renewMs);
        if (lease !== undefined) await deleteLease(api, lease, soon).catch(() => undefined); // else `tend` finds it
        throw error;
      }
    },
    async resume(runId, signal) {
      const lease = await find(runId, undefined, signal);
      const record = lease === undefined ? undefined : readRecord(lease);
      if (lease === undefined || record === undefined || !isOurs(lease)) return false;
      open.set(runId, record);
      return true;
    },
    async record(run, steps, signal) {
      if (!open.has(run.id) && !(await this.resume(run.id, signal))) {
        throw new OperationalError('not-trusted', `run ${run.id}: it was taken over by another sidehook`);
      }
      const known = open.get(run.id) as LostRun;
      await write(progressOf(known, run, steps), signal);
    },
    async close(runId, signal) {
      const record = open.get(runId);
      const lease = await find(runId, record?.run.job, signal);
      if (lease !== undefined && isOurs(lease)) {
        for (const { key } of readRecord(lease)?.holds ?? []) await forgetHold(key, runId, signal);
        await untilUndisturbed(`forget run ${runId}`, async () => {
          const now = await find(runId, record?.run.job, signal);
          return now === undefined || !isOurs(now) || (await deleteLease(api, now, signal)) ? true : undefined;
        });
      }
      open.delete(runId);
    },
    async tend(phaseOf, signal) {
      const leases = await listLeases(api, signal);
      const runs: LostRun[] = [];
      const holds: Lost['holds'][number][] = [];
      let undecided = 0;
      const sightOf = look(leases);
      const alive = new Set(
        leases.flatMap((lease) => (lease.kind === 'hold' ? [] : [readRecord(lease)?.run.id ?? ''])),
      );
      for (const lease of leases) {
        if (isOurs(lease)) {
          const run = lease.kind === 'hold' ? undefined : readRecord(lease);
          const phase = run === undefined ? undefined : phaseOf(run.run.id);
          if (lease.kind === 'hold' && isOrphan(lease, alive) && (await forgetReleased(api, lease, signal))) continue;
          if (phase === 'closed') await this.close(run?.run.id ?? '', signal);
          else await updateLease(api, lease, { ...content, annotations: {} }, signal);
          if (run !== undefined && phase === undefined && !open.has(run.run.id)) runs.push(run); // taken over, and not begun
          if (lease.kind === 'hold' && isOrphan(lease, alive)) holds.push(...holdIn(lease));
          continue;
        }
        if (lease.kind === 'hold' && !isOrphan(lease, alive)) continue; // its run speaks for it
        const seen = sightOf(lease);
        if (seen === 'lost') {
          const { name } = lease.metadata;
          log?.warn('a sidehook was lost: taking over what it left', {
            lease: name,
            holder: lease.spec?.holderIdentity,
          });
          const taken = await takeOver(lease, signal);
          if (taken?.run !== undefined) runs.push(taken.run);
          holds.push(...(taken?.holds ?? []));
        } else if (seen === 'undecided') undecided += 1;
      }
      return { runs, holds, undecided };
    },
  };

  async function takeOver(
    lease: Lease & { readonly kind: LeaseKind },
    signal: AbortSignal,
  ): Promise<{ readonly run?: LostRun; readonly holds?: Lost['holds'] } | undefined> {
    if (lease.kind === 'hold') {
      const held = readHoldLease(lease);
      const sharers = held.sharers.map((one) => ({ ...one, holder: identity() }));
      const taken = await writeHold(lease, { ...held, sharers }, signal);
      if (taken === undefined || (await forgetReleased(api, taken, signal))) return undefined;
      return { holds: holdIn(taken) };
    }
    const run = readRecord(lease);
    if (run === undefined) return undefined;
    if ((await updateLease(api, lease, { ...content, annotations: {} }, signal)) === undefined) return undefined;
    for (const { key } of run.holds)
      await changeSharers(key, run.run.id, (one) => ({ ...one, holder: identity() }), signal);
    return { run };
  }

  /** What failed restores of the same job keep is for this one to let go of, once it has succeeded. */
  async function inherit({ operation, job }: LostRun['run'], signal: AbortSignal): Promise<readonly LostRun[]> {
    const taken: LostRun[] = [];
    const leases = operation === 'restore' ? await listLeases(api, signal) : [];
    for (const lease of leases.filter((one) => one.kind === 'kept' && !isOurs(one))) {
      if (readRecord(lease)?.run.job !== job) continue;
      const run = (await takeOver(lease, signal))?.run;
      if (run !== undefined) taken.push(run);
    }
    return taken;
  }

  function writeHold(lease: Lease, held: HoldLease, signal: AbortSignal): Promise<Lease | undefined> {
    return updateLease(api, lease, { ...content, annotations: writeHoldLease(held) }, signal);
  }

  async function changeSharers(
    key: string,
    runId: string,
    change: (sharer: Sharer) => Sharer,
    signal: AbortSignal,
  ): Promise<void> {
    await untilUndisturbed(`take over the hold of ${key}`, async () => {
      const lease = await getLease(api, leaseName('hold', key), signal);
      if (lease === undefined) return true;
      const held = readHoldLease(lease);
      const sharers = held.sharers.map((one) => (one.run === runId ? change(one) : one));
      return writeHold(lease, { ...held, sharers }, signal);
    });
  }

  /** A hold that was undone by others leaves its Lease behind; of what is down still, the release takes care. */
  async function forgetHold(key: string, runId: string, signal: AbortSignal): Promise<void> {
    const lease = await getLease(api, leaseName('hold', key), signal);
    if (lease === undefined) return;
    const held = readHoldLease(lease);
    const sharers = held.sharers.filter(({ run }) => run !== runId);
    if (sharers.length === held.sharers.length && sharers.length > 0) return;
    const controller = await getController(api, key, signal);
    if (controller !== undefined && controller.spec.replicas === 0) return;
    const [other] = sharers;
    if (other === undefined) return void (await deleteLease(api, lease, signal));
    const annotations = writeHoldLease({ ...held, sharers });
    await updateLease(api, lease, { ...content, holder: other.holder, annotations }, signal); // who is in it renews it
  }
}
