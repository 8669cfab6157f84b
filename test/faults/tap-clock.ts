/**
 * Loaded before the daemon: its wall clock jumps. FAULTS_CLOCK: a file with the milliseconds to be added; the monotonic
 * clock knows nothing of it.
 */
import { readFileSync } from 'node:fs';

const { FAULTS_CLOCK = '' } = process.env;
const Real = Date;
const shifted = (): number => {
  try {
    return Real.now() + Number(readFileSync(FAULTS_CLOCK, 'utf8'));
  } catch {
    return Real.now();
  }
};

globalThis.Date = new Proxy(Real, {
  construct: (target, given, self) => Reflect.construct(target, given.length === 0 ? [shifted()] : given, self),
  get: (target, name, self) => (name === 'now' ? shifted : Reflect.get(target, name, self)),
});
