// Data that a component reads from the node and reads again while it is looked at.
import { useEffect, useRef, useState } from "./html.js";
import { listen, state } from "./live.js";

/** {data, error, loading, reload}: the old data stays while new ones come, so nothing jumps. `ask` takes an AbortSignal. */
export function useResource(ask, inputs, every_ms = 0) {
  const [seen, setSeen] = useState({ data: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  const asked = useRef(inputs);
  const fresh = inputs.some((input, at) => input !== asked.current[at]);
  useEffect(() => {
    const ending = new AbortController();
    let timer = null;
    asked.current = inputs;
    const run = async () => {
      try {
        const data = await ask(ending.signal);
        if (!ending.signal.aborted) setSeen({ data, error: null, loading: false });
      } catch (error) {
        if (error.name !== "AbortError" && !ending.signal.aborted) setSeen((before) => ({ ...before, error, loading: false }));
      }
      if (!ending.signal.aborted && every_ms) timer = setTimeout(again, every_ms);
    };
    const again = () => (state.value === "paused" ? (timer = setTimeout(again, every_ms)) : run());
    setSeen((before) => ({ ...before, loading: true }));
    run();
    return () => { ending.abort(); clearTimeout(timer); };
  }, [...inputs, turn, every_ms]);
  useEffect(() => listen("reset", () => setTurn((before) => before + 1)), []);
  return { ...seen, stale: fresh, reload: () => setTurn((before) => before + 1) };
}
