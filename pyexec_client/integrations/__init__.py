"""Executors and tools for agent frameworks. Each module needs its framework; this package imports none of them.

- `autogen`: `AutoGenExecutor`
- `google_adk`: `AdkExecutor`
- `smolagents`: `SmolagentsExecutor`
- `langchain`: `run_python_tool`
- `openai_agents`: `run_python_tool`

Each call runs in a new interpreter: variables and files of earlier calls are gone.
"""
