/** Chance that a seed decides, so that a story can be played again. */

/** From 0 to below 1; the same seed gives the same row (mulberry32). */
export type Dice = () => number;

export function makeDice(seed: number): Dice {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from `least` to `most`. */
export function roll(dice: Dice, least: number, most: number): number {
  return least + Math.floor(dice() * (most - least + 1));
}

/** One of them. */
export function pick<Value>(dice: Dice, values: readonly Value[]): Value {
  return values[roll(dice, 0, values.length - 1)] as Value;
}

/** All of them, in an order that the seed decides. */
export function shuffled<Value>(values: readonly Value[], seed: number): readonly Value[] {
  const dice = makeDice(seed);
  return values
    .map((value) => ({ value, at: dice() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ value }) => value);
}
