/** Scales to zero and back. What is needed for the way back stands in a Lease of the workload before it is asked for. */
import { setTimeout as sleep } from 'node:timers/promises';
import { OperationalError } from '../core/errors.ts';
import type { Log } from '../core/ports.ts';
import type { WorkloadRef } from '../core/workload.ts';
import type { Api } from './kubernetes-api.ts';
import {
  createLease,
  deleteLease,
  getLease,
  leaseName,
  type Pace,
  untilUndisturbed,
  updateLease,
} from './kubernetes-lease.ts';
import { type Controller, type Lease, type Pod, pathOf, type Scale } from './kubernetes-objects.ts';
import { getController, partsOf, podsOf } from './kubernetes-pods.ts';
import { type HoldLease, markOf, readHoldLease, type Sharer, writeHoldLease } from './kubernetes-workload.ts';

/** What holds are made with. */
export type Holder = {
  readonly api: Api;
  readonly log: Log | undefined;
  /** Who we are, in Leases. */
  readonly identity: string;
  readonly pace: Pace;
  /** The runs of ours that need a workload held. */
  readonly sharersOf: (key: string) => readonly Sharer[];
};

const POLL_MS = 100;
/** Who takes long is asked less often. */
const SLOWEST_POLL_MS = 1_000;
/** Beyond the longest that a pod itself asks for. */
const EXTRA_MS = 60_000;
const DEFAULT_GRACE_S = 30;
/** How long a hold that is being released may take until it can be made anew. */
const RISING_MS = 120_000;
/** Replicas that are known to no Lease any more: one is better than none. */
const LEAST = 1;

/** `Driver.hold`. */
export async function hold(
  holder: Holder,
  ref: WorkloadRef,
  timeoutMs: number | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { api } = holder;
  const doing = `scale ${ref.name} to 0`;
  const giveUpAt = performance.now() + RISING_MS;
  await untilUndisturbed(doing, async () => {
    for (;;) {
      const controller = await mustFind(api, ref, doing, signal);
      const scale = await readScale(api, ref, doing, signal);
      const lease = await takeLease(holder, ref, controller, scale, signal);
      if (lease === undefined) return undefined;
      if (lease !== 'rising') return bringDown(api, ref, scale, doing, signal);
      if (performance.now() > giveUpAt) throw failed(doing, 'its release, by another sidehook, does not end');
      await sleep(POLL_MS, undefined, { signal });
    }
  });

  await untilGone(api, ref, doing, timeoutMs, signal);
  await untilUndisturbed(doing, async () => {
    const lease = await getLease(api, leaseName('hold', ref.key), signal);
    const controller = await mustFind(api, ref, doing, signal);
    if (lease === undefined) throw failed(doing, 'its Lease was deleted meanwhile');
    const held = readHoldLease(lease);
    if (held.finished !== undefined) return lease;
    return changeLease(holder, lease, { ...held, finished: markOf(controller) }, signal);
  });
}

async function bringDown(
  api: Api,
  ref: WorkloadRef,
  scale: Scale,
  doing: string,
  signal: AbortSignal,
): Promise<true | undefined> {
  if ((scale.spec?.replicas ?? 0) === 0) return true;
  return (await writeScale(api, ref, scale, 0, doing, signal)) ? true : undefined;
}

/** Writes down what is needed to undo it, or joins those who hold it already. Undefined: others came in between. */
async function takeLease(
  holder: Holder,
  ref: WorkloadRef,
  controller: Controller,
  scale: Scale,
  signal: AbortSignal,
): Promise<Lease | 'rising' | undefined> {
  const { api, identity, pace } = holder;
  const name = leaseName('hold', ref.key);
  const replicas = scale.spec?.replicas ?? 0;
  const { uid = '' } = controller.metadata;
  const ours = oursOf(holder, ref);
  const fresh: HoldLease = { replicas, uid, started: markOf(controller), sharers: ours };
  const lease = await getLease(api, name, signal);
  if (lease === undefined) {
    if (replicas === 0) throw failed(`scale ${ref.name} to 0`, 'it is there already, and not by our doing');
    const annotations = { 'sidehook.io/workload': ref.key, ...writeHoldLease(fresh) };
    return createLease(api, name, { kind: 'hold', holder: identity, pace, annotations }, signal);
  }
  const held = readHoldLease(lease);
  if (held.uid !== uid) return changeLease(holder, lease, fresh, signal); // of one that was made anew since
  if (held.sharers.length === 0) return 'rising';
  // What is not down yet has as many as it has now; what was down has as many as it had before.
  const isUp = held.finished === undefined && replicas > 0;
  const kept = isUp ? { ...held, replicas, started: markOf(controller) } : held;
  const sharers = [...held.sharers.filter((one) => !ours.some(({ run }) => run === one.run)), ...ours];
  const isSame = JSON.stringify({ ...kept, sharers }) === JSON.stringify(held);
  return isSame ? lease : changeLease(holder, lease, { ...kept, sharers }, signal);
}

function oursOf({ identity, sharersOf }: Holder, { key }: WorkloadRef): readonly Sharer[] {
  const runs = sharersOf(key);
  return runs.length > 0 ? runs : [{ run: identity, job: '', holder: identity }];
}

function changeLease(
  { api, identity, pace }: Holder,
  lease: Lease,
  held: HoldLease,
  signal: AbortSignal,
): Promise<Lease | undefined> {
  return updateLease(api, lease, { holder: identity, pace, annotations: writeHoldLease(held) }, signal);
}

/** `Driver.release`: back to as many as there were; where runs of other sidehooks need it held, we only let go of it. */
export async function release(holder: Holder, ref: WorkloadRef, signal: AbortSignal): Promise<void> {
  const { api, identity, log } = holder;
  const doing = `scale ${ref.name} up again`;
  const lease = await untilUndisturbed(doing, async (): Promise<Lease | 'none' | undefined> => {
    const found = await getLease(api, leaseName('hold', ref.key), signal);
    if (found === undefined) return 'none';
    const held = readHoldLease(found);
    const sharers = held.sharers.filter((one) => one.holder !== identity);
    if (sharers.length === held.sharers.length) return found;
    // Who is in it still renews it, and not we.
    const by = { ...holder, identity: sharers[0]?.holder ?? identity };
    return changeLease(by, found, { ...held, sharers }, signal);
  });
  const held = lease === 'none' ? undefined : readHoldLease(lease);
  if (held !== undefined && held.sharers.length > 0) return;
  await untilUndisturbed(doing, async () => {
    const controller = await mustFind(api, ref, doing, signal);
    const scale = await readScale(api, ref, doing, signal);
    if ((scale.spec?.replicas ?? 0) > 0) return true;
    if (held === undefined)
      log?.error('how many replicas there were is not known any more: starting one', { workload: ref.name });
    // Two at once of what was meant to be one at a time, on the same volume, would do harm.
    await untilGone(api, ref, doing, undefined, signal).catch((error: unknown) => {
      if (!(error instanceof OperationalError) || error.code !== 'workload-failed') throw error;
      log?.warn('old pods are there still, starting new ones', { workload: ref.name, why: error.message });
    });
    const isSame = held?.uid === undefined || held.uid === controller.metadata.uid;
    const replicas = isSame ? (held?.replicas ?? LEAST) : LEAST;
    return (await writeScale(api, ref, scale, replicas, doing, signal)) ? true : undefined;
  });
  await untilUndisturbed(doing, async () => {
    const now = await getLease(api, leaseName('hold', ref.key), signal);
    if (now === undefined || readHoldLease(now).sharers.length > 0) return true; // somebody holds it anew
    return (await deleteLease(api, now, signal)) ? true : undefined; // else it was renewed just now
  });
}

/** Deletes the Lease of a release that was cut off when its workload was up again already. False: it is none such. */
export async function forgetReleased(api: Api, lease: Lease, signal: AbortSignal): Promise<boolean> {
  const key = lease.metadata.annotations?.['sidehook.io/workload'];
  if (key === undefined || readHoldLease(lease).sharers.length > 0) return false;
  const controller = await getController(api, key, signal);
  if (controller?.spec.replicas === 0) return false;
  await deleteLease(api, lease, signal);
  return true;
}

async function mustFind(api: Api, ref: WorkloadRef, doing: string, signal: AbortSignal): Promise<Controller> {
  const controller = await getController(api, ref.key, signal);
  if (controller === undefined) throw failed(doing, `there is no ${ref.key}`);
  return controller;
}

function scalePath(api: Api, { key, name }: WorkloadRef, doing: string): string {
  const parts = partsOf(key);
  if (parts === undefined) throw failed(doing, `${name} is no Deployment and no StatefulSet`);
  return `${pathOf(api, `${parts.kind}s`, parts.name)}/scale`;
}

async function readScale(api: Api, ref: WorkloadRef, doing: string, signal: AbortSignal): Promise<Scale> {
  return (await api.ask({ doing, path: scalePath(api, ref, doing), signal })).body as Scale;
}

/** False: it has changed since it was read. */
async function writeScale(
  api: Api,
  ref: WorkloadRef,
  scale: Scale,
  replicas: number,
  doing: string,
  signal: AbortSignal,
): Promise<boolean> {
  const body = { ...scale, spec: { ...scale.spec, replicas } };
  const path = scalePath(api, ref, doing);
  const { status } = await api.ask({ doing, method: 'PUT', path, body, accept: [409], signal });
  return status !== 409;
}

/**
 * Waits until no pod of it is left; by the API's word alone a pod that is being deleted still runs. The term is for each:
 * a StatefulSet ends one after the other.
 */
async function untilGone(
  api: Api,
  ref: WorkloadRef,
  doing: string,
  timeoutMs: number | undefined,
  signal: AbortSignal,
): Promise<void> {
  const beganAt = performance.now();
  let fewest = Number.POSITIVE_INFINITY;
  let fewerSince = beganAt;
  for (;;) {
    const controller = await mustFind(api, ref, doing, signal);
    const left = (await podsOf(api, controller, signal)).filter(isAlive);
    if (left.length === 0) return;
    if (left.length < fewest) fewerSince = performance.now();
    fewest = Math.min(fewest, left.length);
    const graces = left.map(({ spec }) => (spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_S) * 1000);
    const termMs = timeoutMs ?? Math.max(...graces) + EXTRA_MS;
    if (performance.now() - fewerSince > termMs) {
      const names = left.map(({ metadata }) => metadata.name).join(', ');
      throw failed(doing, `after ${Math.round(termMs / 1000)} s there still is ${names}`);
    }
    const pollMs = Math.min(Math.max(POLL_MS, (performance.now() - beganAt) / 20), SLOWEST_POLL_MS);
    await sleep(pollMs, undefined, { signal });
  }
}

function isAlive({ status }: Pod): boolean {
  return status?.phase !== 'Succeeded' && status?.phase !== 'Failed';
}

function failed(doing: string, why: string): OperationalError {
  return new OperationalError('workload-failed', `${doing}: ${why}`);
}
