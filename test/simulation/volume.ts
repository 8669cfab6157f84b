/** The shared volume: requests that are taken by one of two sides, answers that stay, leases that end with their holders. */
import type { Delivery, Intake, Lease } from '../../src/core/ports.ts';
import type { Request } from '../../src/core/request.ts';
import type { Answer } from '../../src/core/result.ts';
import type { World } from './world.ts';

type Letter = { readonly request: Request; readonly ref: string; stage: 'req' | 'got' | 'withdrawn' | 'done' };

/** A client's proof of life, which its command inherits. */
type Life = {
  holders: number;
  diedAtMs: number | undefined;
  abandoned: string | undefined;
  readonly onChange: Set<() => void>;
};

export type Volume = ReturnType<typeof makeVolume>;

export function makeVolume(world: World) {
  const letters: Letter[] = [];
  const answers = new Map<string, Answer[]>();
  const lives = new Map<string, Life>();
  const waiting = new Set<() => void>();

  const lifeOf = (ref: string): Life => {
    const known = lives.get(ref) ?? { holders: 0, diedAtMs: undefined, abandoned: undefined, onChange: new Set() };
    lives.set(ref, known);
    return known;
  };
  const tell = (life: Life): void => {
    for (const change of [...life.onChange]) change();
  };
  const wakeAll = (): void => {
    for (const wake of waiting) wake();
    waiting.clear();
  };

  const leaseOf = (ref: string): Lease => ({
    ref,
    isHeld: async () => lifeOf(ref).holders > 0,
    lost: (signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const life = lifeOf(ref);
        const onAbort = (): void => {
          life.onChange.delete(look);
          reject(signal.reason);
        };
        const look = (): void => {
          if (life.diedAtMs === undefined) return;
          life.onChange.delete(look);
          signal.removeEventListener('abort', onAbort);
          resolve();
        };
        life.onChange.add(look);
        signal.addEventListener('abort', onAbort, { once: true });
        world.after(world.random.int(3), look);
      }),
    abandon(why) {
      const life = lifeOf(ref);
      life.abandoned ??= why;
      tell(life);
    },
  });

  return {
    letters,
    answers,
    lifeOf,
    leaseOf,
    /** Another holder of the lease: the client, and its command. The result lets go, once. */
    hold(ref: string): () => void {
      const life = lifeOf(ref);
      life.holders += 1;
      let isHeld = true;
      return () => {
        if (!isHeld) return;
        isHeld = false;
        life.holders -= 1;
        if (life.holders > 0) return;
        life.diedAtMs = world.now();
        tell(life);
      };
    },
    send(request: Request, ref: string): void {
      letters.push({ request, ref, stage: 'req' });
      world.after(world.random.int(3), wakeAll);
    },
    /** The rename back, which the sidecar may have won. */
    withdraw(id: string): boolean {
      const letter = letters.find(({ request, stage }) => request.id === id && stage === 'req');
      if (letter !== undefined) letter.stage = 'withdrawn';
      return letter !== undefined;
    },
    isTaken: (id: string): boolean =>
      letters.some(({ request, stage }) => request.id === id && (stage === 'got' || stage === 'done')),
    /** The way in, as one incarnation of the sidecar sees it. `isAlive`: whether it still is. */
    openIntake(isAlive: () => boolean, onAnswer: (request: Request, answer: Answer) => void): Intake {
      const open = new Set<Letter>();
      const deliveryOf = (request: Request, ref: string): Delivery => ({
        request,
        sender: leaseOf(ref),
        output: async () => undefined,
        async answer(answer) {
          if (!isAlive()) return;
          answers.set(request.id, [...(answers.get(request.id) ?? []), answer]);
          onAnswer(request, answer);
          for (const letter of letters)
            if (letter.request.id === request.id && letter.stage === 'got') letter.stage = 'done';
          tell(lifeOf(ref));
        },
      });
      return {
        async *deliveries(signal) {
          while (!signal.aborted) {
            for (const letter of letters) {
              if (!isAlive()) return;
              if (open.has(letter) || (letter.stage !== 'req' && letter.stage !== 'got')) continue;
              open.add(letter);
              letter.stage = 'got';
              yield deliveryOf(letter.request, letter.ref);
              if (signal.aborted) return;
            }
            const woken = Promise.withResolvers<void>();
            waiting.add(woken.resolve);
            signal.addEventListener('abort', () => woken.resolve(), { once: true });
            await woken.promise;
          }
        },
        reopen: (request, ref) => deliveryOf(request, ref),
        lease: leaseOf,
      };
    },
  };
}
